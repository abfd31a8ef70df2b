"""Retain-only fine-tuning: the paper's FT, federated."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from reconsent.config import Settings
from strategies import messages as msg
from strategies.members import RoundConfig
from strategies.schedules import scheduled
from strategies.unlearning_strategy import Departure, UnlearningStrategy
from unlearning.parameters import Vector


class RetainFineTuningSettings(Settings):
    """Settings of retain-only fine-tuning."""

    rate: float = Field(
        default=1.0, gt=0, description="sites' learning rate in the first round, over that of the training"
    )
    final_rate: float | None = Field(
        default=None, gt=0, description="the same in the last round; empty: as rate"
    )
    schedule: Literal["constant", "linear", "cosine", "geometric"] = Field(
        default="geometric", description="way from the first learning rate to the last"
    )
    effort: int = Field(
        default=1, ge=1, description="local epochs (or steps) of a retain round, times those of the training"
    )
    share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of each remaining site's training patients that is used; the paper's FT: 0.1",
    )
    momentum: float = Field(
        default=0.0, ge=0, lt=1, description="server momentum, zero in the last quarter of the rounds"
    )


class RetainFineTuning(UnlearningStrategy):
    """Train on with the remaining sites only (FT of Xue et al. 2024, federated).

    Each round is one of federated averaging on the remaining sites, θ ← θ + Σ pᵢ/(1 − pᵤ) Δᵢ. The paper's FT
    uses a tenth of the retain data D_r′: ``share = 0.1``; see also ``full-ft``.

    With server momentum β the averaged update Δ̄ becomes m ← β m + Δ̄, with β = 0 in the last quarter of
    the rounds, so that what momentum has overshot is repaired.
    """

    name: ClassVar[str] = "retain-ft"
    summary_line: ClassVar[str] = "retain-only fine-tuning; forgets little by itself"
    source: ClassVar[str] = "Xue et al., Erase to Enhance, MIDL 2024 (FT)"
    cost_line: ClassVar[str] = "the budget of rounds at the remaining sites"
    settings_type: ClassVar[type[Settings]] = RetainFineTuningSettings
    changing: ClassVar[tuple[str, ...]] = ("_momentum",)
    settings: RetainFineTuningSettings

    def __init__(self, departure: Departure, settings: RetainFineTuningSettings, **kwargs: Any) -> None:
        own: RoundConfig = kwargs.pop("round_config", None) or (lambda _round: {})
        super().__init__(departure, settings, **kwargs)
        self.round_config = lambda t: {**own(t), msg.LEARNING_RATE: self.learning_rate(t), **self._extent()}
        self._momentum: Vector | None = None

    def _extent(self) -> dict[str, int | float | str | bool]:
        effort, share = self.settings.effort, self.settings.share
        told: dict[str, int | float | str | bool] = {msg.EFFORT: effort} if effort != 1 else {}
        return told if share == 1 else {**told, msg.SHARE: share}

    def learning_rate(self, server_round: int) -> float:
        """The sites' learning rate in ``server_round`` (from 1)."""
        share = scheduled(
            self.settings.schedule,
            self.settings.rate,
            self.settings.final_rate,
            self.index(server_round) - 1,
            self.departure.budget_rounds,
        )
        return share * self.departure.learning_rate

    def combine(self, server_round: int, start: Vector, update: Vector) -> Vector:
        """Apply server momentum."""
        del start
        budget = self.departure.budget_rounds
        last_quarter = self.index(server_round) > budget - max(1, budget // 4)
        beta = 0.0 if last_quarter else self.settings.momentum
        if self._momentum is not None and beta > 0:
            update = update + np.float32(beta) * self._momentum
        self._momentum = update if self.settings.momentum > 0 else None
        return update
