"""GA-ℓ1: gradient ascent at the leaving site."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from reconsent.config import Settings
from strategies import messages as msg
from strategies.cooperation import Cooperating, CooperatingSettings


class GradientAscentSettings(CooperatingSettings):
    """Settings of gradient ascent at the leaving site."""

    gamma: float = Field(
        default=1e-6, ge=0, description="γ: weight of the ℓ1 norm of the parameters beside −J"
    )


class GradientAscent(Cooperating):
    """GA-ℓ1 (Xue et al., Erase to Enhance, MIDL 2024): min −J(θ; D_f) + γ ‖θ‖₁.

    The leaving site alone trains, on its own data, and its update is the round's: θ ← θ + Δᵤ. Without the
    remaining sites nothing holds the model, and the paper's figures collapse to 16 dB; γ must be given, since
    with γ = 1 the ℓ1 norm of a large net is all there is. Fewer rounds (``rounds-fraction``) destroy less.
    """

    name: ClassVar[str] = "ga-l1"
    summary_line: ClassVar[str] = "gradient ascent with l1 at the leaving site; destroys on its own"
    source: ClassVar[str] = "Xue et al., Erase to Enhance, MIDL 2024 (GA-l1)"
    cost_line: ClassVar[str] = "the budget of rounds, at the leaving site alone"
    settings_type: ClassVar[type[Settings]] = GradientAscentSettings
    settings: GradientAscentSettings

    def asks_others(self, server_round: int) -> bool:
        """Nobody but the leaving sites has a part."""
        del server_round
        return False

    def told_leavers(self, server_round: int) -> dict[str, int | float | str | bool]:
        """To climb, by how much ℓ1."""
        del server_round
        return {msg.TASK: msg.ASCEND, msg.GAMMA: self.settings.gamma}
