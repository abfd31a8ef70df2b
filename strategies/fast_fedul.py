"""Fast-FedUL: subtract the site's updates, damped by what the others repaired since."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from reconsent.config import Settings
from strategies.needs import Needs
from strategies.one_shot import OneShot, OneShotSettings
from unlearning.history import damped_sum
from unlearning.parameters import ParameterLayout, Vector


class FastFedULSettings(OneShotSettings):
    """Settings of Fast-FedUL."""

    damping: float = Field(
        default=0.07, ge=0, lt=1, description="α: what the others repair of the site's part in one round"
    )
    strength: float = Field(default=1.0, gt=0, description="θ: share of the damped sum that is subtracted")
    repair: bool = Field(
        default=False, description="retain-only rounds afterwards, which the paper has none of"
    )


class FastFedUL(OneShot):
    """Subtract the withdrawn site's damped updates (Huynh et al., Fast-FedUL, ECML-PKDD 2024).

    U ← (1 − α βₜ) U + pᵤ Δᵤᵗ,   θ' = θ_T − θ U,

    where βₜ = 1 − pᵤ is the weight of the others in round t, and the damping stands for their curvature
    by one scalar: with α = 0 it is Wu et al.'s subtraction, which diverges with the number of rounds. Of
    d ← (I − η K H) d − c it takes H as a scalar and the site's whole update for what it added.
    """

    name: ClassVar[str] = "fast-fedul"
    summary_line: ClassVar[str] = "subtract the site's updates, damped round by round; no site is asked"
    source: ClassVar[str] = "Huynh et al., Fast-FedUL, ECML-PKDD 2024"
    cost_line: ClassVar[str] = "no round: sums at the server; with repair the budget of rounds"
    settings_type: ClassVar[type[Settings]] = FastFedULSettings
    settings: FastFedULSettings

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        """Single updates of the site."""
        del settings
        return Needs(contributions=True, history="some")

    def displacement(self, parameters: Vector, layout: ParameterLayout) -> Vector:
        """−θ U ``(P,)``."""
        del parameters, layout
        assert self.cache is not None  # noqa: S101 - checked
        s = self.settings
        move: Vector = -s.strength * damped_sum(self.cache, self.departure.contributors, damping=s.damping)
        return move.astype("float32", copy=False)
