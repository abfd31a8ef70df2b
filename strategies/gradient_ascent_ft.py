"""GA-ℓ1-FT: gradient ascent at the leaving site and fine-tuning at the others, in the same round."""

from __future__ import annotations

from typing import ClassVar

from strategies.gradient_ascent import GradientAscent


class GradientAscentFineTuning(GradientAscent):
    """GA-ℓ1-FT (Xue et al., MIDL 2024): min −J(θ; D_f) + γ ‖θ‖₁ + J(θ; D_r′).

    The paper adds both losses in each step. Federated, each round adds what both did:
    θ ← θ + Σ pᵢ/(1 − pᵤ) Δᵢ + w Δᵤ with w = 1, Δᵤ of −J + γ ‖·‖₁ at the leaving site. With one plain gradient
    step a site that is the paper's step.
    """

    name: ClassVar[str] = "ga-l1-ft"
    summary_line: ClassVar[str] = "gradient ascent at the leaving site beside fine-tuning at the others"
    source: ClassVar[str] = "Xue et al., Erase to Enhance, MIDL 2024 (GA-l1-FT)"
    cost_line: ClassVar[str] = "the budget of rounds, at all sites"

    def asks_others(self, server_round: int) -> bool:
        """Both have a part."""
        del server_round
        return True
