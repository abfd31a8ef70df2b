"""Rapid retraining: begin anew without the site, with a second-order optimiser at the sites."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from reconsent.config import Settings
from strategies import messages as msg
from strategies.members import RoundConfig
from strategies.retraining import Retraining
from strategies.schedules import scheduled
from strategies.unlearning_strategy import Departure


class RapidRetrainingSettings(Settings):
    """Settings of rapid retraining."""

    rate: float = Field(default=1.0, gt=0, description="sites' learning rate over that at the training's end")
    final_rate: float | None = Field(
        default=None, gt=0, description="the same in the last round; empty: as rate"
    )
    effort: int = Field(
        default=1, ge=1, description="local epochs (or steps) of a round, times those of the training"
    )


class RapidRetraining(Retraining):
    """Retrain from the initial model in few rounds (Liu et al., The Right to be Forgotten, INFOCOM 2022).

    Each remaining site takes quasi-Newton steps θ ← θ − η Γ⁻¹ m with Γ the diagonal of its empirical Fisher
    information, both smoothed over the steps (β = 0.9 and 0.999) and corrected for their bias:

        m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) (g ⊙ g)²,   Γ = √v̂ + ε.

    Γ estimates g², so where abs(g) < 1 the step m/Γ is about 1/g, and is clamped to 1 in size: there it is
    nearly a descent by the sign of the gradient, with steps of one length.

    Exact, since nothing of the withdrawn site is in it; but within the budget of rounds it ends less trained
    than the oracle. The sites must know the optimiser ``fisher`` (see ``strategies.messages``).
    """

    name: ClassVar[str] = "rapid-retrain"
    summary_line: ClassVar[str] = "retrain from scratch in few rounds, with a diagonal Fisher at the sites"
    source: ClassVar[str] = "Liu et al., The Right to be Forgotten in Federated Learning, INFOCOM 2022"
    cost_line: ClassVar[str] = "the budget of rounds at the remaining sites"
    settings_type: ClassVar[type[Settings]] = RapidRetrainingSettings
    settings: RapidRetrainingSettings

    def __init__(self, departure: Departure, settings: RapidRetrainingSettings, **kwargs: Any) -> None:
        own: RoundConfig = kwargs.pop("round_config", None) or (lambda _round: {})
        super().__init__(departure, settings, **kwargs)
        self.round_config = lambda t: {**own(self.index(t)), **self._told(t)}

    @property
    def num_rounds(self) -> int:
        """The budget."""
        return self.departure.budget_rounds

    def _told(self, server_round: int) -> dict[str, int | float | str | bool]:
        s, place = self.settings, self.index(server_round) - 1
        share = scheduled("geometric", s.rate, s.final_rate, place, self.num_rounds)
        told: dict[str, int | float | str | bool] = {
            msg.LEARNING_RATE: share * self.departure.learning_rate,
            msg.OPTIMISER: msg.FISHER,
        }
        return told if s.effort == 1 else {**told, msg.EFFORT: s.effort}
