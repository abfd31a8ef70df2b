"""What a site's update adds to its running contributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unlearning.contribution_files import StoredFile
from unlearning.parameters import Vector

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
    """

    site: str
    round: int
    share: float
    norm: float
    decay: float
    file: StoredFile | None

    def apply(self, before: Mapping[str, Vector] | None, delta: Vector, mean: Vector) -> dict[str, Vector]:
        """The running pair after the round.

        Parameters
        ----------
        before
            The pair so far, ``(P,)`` each; ``None`` if there is none.
        delta
            The site's update Δ ``(P,)``.
        mean
            The round's weighted average Δ̄ ``(P,)``.
        """
        pair = before or {"sum": np.zeros_like(delta), "specific": np.zeros_like(delta)}
        specific = pair["specific"] * np.float32(self.decay)
        specific += specific_contribution(delta, mean, self.share)
        return {"sum": pair["sum"] + np.float32(self.share) * delta, "specific": specific}


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
