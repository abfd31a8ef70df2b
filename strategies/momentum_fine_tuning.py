"""Retain-only fine-tuning with annealed server momentum: the control that any ascent must beat."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from reconsent.config import Settings
from strategies.retain_fine_tuning import RetainFineTuning, RetainFineTuningSettings


class MomentumFineTuningSettings(RetainFineTuningSettings):
    """Settings of retain-only fine-tuning with server momentum."""

    momentum: float = Field(
        default=0.8, gt=0, lt=1, description="server momentum, zero in the last quarter of the rounds"
    )


class MomentumFineTuning(RetainFineTuning):
    """Retain-only fine-tuning with annealed server momentum (heavy ball; Polyak 1964).

    m ← β m + Δ̄, θ ← θ + m, with β = 0 in the last quarter of the rounds. Better optimisation alone is an
    accelerator of forgetting (Liu et al. 2022; FedUHB, 2024): the control that any ascent must beat at equal
    cost.
    """

    name: ClassVar[str] = "retain-ft-momentum"
    summary_line: ClassVar[str] = "retain-only fine-tuning with annealed server momentum; the control to beat"
    source: ClassVar[str] = "Polyak 1964; as a control, Liu et al., INFOCOM 2022"
    cost_line: ClassVar[str] = "the budget of rounds at the remaining sites"
    settings_type: ClassVar[type[Settings]] = MomentumFineTuningSettings
