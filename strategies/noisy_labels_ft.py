"""NL-FT: noisy targets at the leaving site and fine-tuning at the others, in the same round."""

from __future__ import annotations

from typing import ClassVar

from strategies.noisy_labels import NoisyLabels


class NoisyLabelsFineTuning(NoisyLabels):
    """NL-FT (Xue et al., MIDL 2024): min J(θ; x, y + λ N(0, I)) on D_f + J(θ; D_r′).

    The paper's best. Each round adds what both did, θ ← θ + Σ pᵢ/(1 − pᵤ) Δᵢ + w Δᵤ with w = 1.
    """

    name: ClassVar[str] = "nl-ft"
    summary_line: ClassVar[str] = "noisy targets at the leaving site beside fine-tuning at the others"
    source: ClassVar[str] = "Xue et al., Erase to Enhance, MIDL 2024 (NL-FT)"
    cost_line: ClassVar[str] = "the budget of rounds, at all sites"

    def asks_others(self, server_round: int) -> bool:
        """Both have a part."""
        del server_round
        return True
