"""Full fine-tuning: the paper's Full FT, federated."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from reconsent.config import Settings
from strategies.retain_fine_tuning import RetainFineTuning, RetainFineTuningSettings


class FullFineTuningSettings(RetainFineTuningSettings):
    """Settings of full fine-tuning: those of retain-ft, with all data."""

    share: float = Field(
        default=1.0, ge=1, le=1, description="of the retain data: all of them, or it is retain-ft"
    )


class FullFineTuning(RetainFineTuning):
    """Train on with all data of the remaining sites, as the training went (Full FT of Xue et al. 2024).

    min_θ J(θ; D_r) from θ = G, where FT has only a part D_r′ of D_r. The same learning rate and the same
    local passes as at the end of the training, and nothing else: what a consortium does that ignores a
    withdrawal except for not asking the site again. A control.
    """

    name: ClassVar[str] = "full-ft"
    summary_line: ClassVar[str] = "retain-only fine-tuning on all data, as the training went; a control"
    source: ClassVar[str] = "Xue et al., Erase to Enhance, MIDL 2024 (Full FT)"
    cost_line: ClassVar[str] = "the budget of rounds at the remaining sites, on all their data"
    settings_type: ClassVar[type[Settings]] = FullFineTuningSettings
