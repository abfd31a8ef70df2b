"""What a site's update adds to its running contributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unlearning.contribution_files import StoredFile
from unlearning.parameters import Vector, norm

RunningKind = Literal["sum", "specific"]


@dataclass(frozen=True, slots=True)
class Fold:
    """One site's part of a round that is being recorded.

    Attributes
    ----------
    site, round
        Whose update, and of which round.
    share
        p, the site's weight in the round.
    norm
        ‖Δ‖ of the update.
    decay
        Factor of the specific contribution so far.
    file
        Of the running pair so far; ``None`` in the site's first round.
    sensitivity
        Ψ so far, see :meth:`apply`.
    """

    site: str
    round: int
    share: float
    norm: float
    decay: float
    file: StoredFile | None
    sensitivity: float = 0.0

    def apply(
        self, before: Mapping[str, Vector] | None, delta: Vector, mean: Vector
    ) -> tuple[dict[str, Vector], float]:
        """The running pair after the round, and Ψ: the length of the path that the site added to the model's.

        Ψ ← (decay) Ψ + p/(1 − p) ‖Δ − Δ̄‖ bounds how far the model is from one trained without the site, to
        first order and for convex losses (SIFU's bounded sensitivity; Fraboni et al., AISTATS 2024).

        Parameters
        ----------
        before
            The pair so far, ``(P,)`` each; ``None`` if there is none.
        delta
            The site's update Δ ``(P,)``.
        mean
            The round's weighted average Δ̄ ``(P,)``.
        """
        pair = dict(before or {}) or {"sum": np.zeros_like(delta), "specific": np.zeros_like(delta)}
        specific = pair["specific"] * np.float32(self.decay)
        added = specific_contribution(delta, mean, self.share)
        specific += added
        pair = {"sum": pair["sum"] + np.float32(self.share) * delta, "specific": specific}
        return pair, self.decay * self.sensitivity + norm(added)


def specific_contribution(delta: Vector, mean: Vector, share: float) -> Vector:
    """What a site added in a round beyond the others: Δ̄ − Δ̄₍without it₎ = p/(1 − p) (Δ − Δ̄).

    A site that was alone (p = 1) moved the model by Δ; without it the model would have stood still.

    Parameters
    ----------
    delta
        The site's update Δ ``(P,)``.
    mean
        The round's weighted average Δ̄ ``(P,)``.
    share
        The site's weight p in it, 0 < p ≤ 1.
    """
    if share >= 1.0:
        return delta
    contribution: Vector = np.float32(share / (1 - share)) * (delta - mean)
    return contribution
