"""Who answers for a consortium's processing: the ``[compliance]`` table of its file."""

from __future__ import annotations

import zoneinfo

from pydantic import Field, field_validator

from reconsent.settings import Settings


class ComplianceConfig(Settings):
    """Who answers for the processing, and by which margins an unlearning will be judged.

    The margins are written down, hashed, when an unlearning begins: whoever changes them afterwards cannot
    have the certificate say that they were met.
    """

    controller: str = Field(default="", description="who answers for the processing; in certificates")
    privacy_officer: str = Field(default="", description="whom to ask about it; in certificates")
    purpose: str = Field(
        default="training of a reconstructor of MR images", description="of the processing, for the record"
    )
    legal_basis: str = Field(default="", description="of the processing, for the record")
    time_zone: str = Field(default="UTC", description="in which deadlines are counted, as Europe/Berlin")
    retain_margin_db: float = Field(
        default=1.0, gt=0, description="PSNR in dB that a remaining site may lose by an unlearning"
    )
    accuracy_margin_db: float = Field(
        default=0.5, gt=0, description="largest gap from the oracle on each of the three accuracies, in dB"
    )
    relearn_margin_db: float = Field(
        default=0.75, gt=0, description="largest gap from the oracle in relearning, in dB"
    )

    @field_validator("time_zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            if value != "UTC":
                zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no time zone known here; write it as Europe/Berlin") from None
        return value
