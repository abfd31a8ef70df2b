"""NL: the leaving site trains on its own data against noisy targets."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from reconsent.config import Settings
from strategies import messages as msg
from strategies.cooperation import Cooperating, CooperatingSettings


class NoisyLabelsSettings(CooperatingSettings):
    """Settings of noisy labels at the leaving site."""

    noise: float = Field(
        default=0.03,
        gt=0,
        description="λ: standard deviation of the noise in the targets, over the largest target of the "
        "volume; the paper's 1e-5 in raw units is 1 to 10 % of the maximum",
    )


class NoisyLabels(Cooperating):
    """NL (Xue et al., Erase to Enhance, MIDL 2024): min J(θ; x, y + λ N(0, I)) on D_f.

    The leaving site alone trains, against its own targets with noise. As GA-ℓ1 it destroys the model without
    the remaining sites.
    """

    name: ClassVar[str] = "nl"
    summary_line: ClassVar[str] = "noisy targets at the leaving site; destroys on its own"
    source: ClassVar[str] = "Xue et al., Erase to Enhance, MIDL 2024 (NL)"
    cost_line: ClassVar[str] = "the budget of rounds, at the leaving site alone"
    settings_type: ClassVar[type[Settings]] = NoisyLabelsSettings
    settings: NoisyLabelsSettings

    def asks_others(self, server_round: int) -> bool:
        """Nobody but the leaving sites has a part."""
        del server_round
        return False

    def told_leavers(self, server_round: int) -> dict[str, int | float | str | bool]:
        """To train against noisy targets, and how noisy."""
        del server_round
        return {msg.TASK: msg.NOISY_LABELS, msg.NOISE: self.settings.noise}
