"""What is left of the withdrawn site's directions in the parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reconsent.errors import ContributionError
from unlearning.ascent import orthonormal_basis
from unlearning.verification.finding import Finding, decide

MARGIN = 0.15

LIMITS = (
    "Alignment looks at the parameters alone: it shows that the model has been moved back along the way it "
    "came by the withdrawn site's updates, not that it behaves so. It sees the directions it is given and no "
    "others, and a model can be aligned and forgetful, or not aligned and remember. Models that began from "
    "different parameters cannot be compared."
)


@dataclass(frozen=True, slots=True)
class Alignment:
    """How much of the way along the site's directions is left.

    Attributes
    ----------
    remaining
        ⟨G_U − G₀, d⟩ / ⟨G − G₀, d⟩: 1 for doing nothing; below 0 beyond the start.
    oracle
        The same of the oracle; ``None`` if there is none. It is seldom 0: sites teach much the same.
    in_span
        Share of ‖G_U − G₀‖ that lies in the span of all the directions, 0 to 1.
    cosine
        Of G_U − G₀ and d.
    margin
        Largest distance from the oracle that counts as none.
    """

    remaining: float
    oracle: float | None
    in_span: float
    cosine: float
    margin: float

    def finding(self) -> Finding:
        """As a finding: as much must be left as in the oracle, no more and no less."""
        known = self.oracle is not None
        gap = self.remaining - (self.oracle or 0.0)
        within = known and abs(gap) <= self.margin
        percent = f"{100 * self.remaining:.0f} %"
        if not known:
            words = f"{percent} of the way along the site's updates is left; there is no oracle beside it."
        else:
            theirs = f"{100 * (self.oracle or 0.0):.0f} %"
            words = (
                f"Of the way along the site's updates {percent} is left; the retrained model went {theirs} "
                "of it."
            )
        return Finding(
            check="alignment",
            verdict=decide(within, decidable=known),
            value=self.remaining,
            unit="",
            low=None,
            high=None,
            reference=self.oracle,
            accepted_low=None if self.oracle is None else self.oracle - self.margin,
            accepted_high=None if self.oracle is None else self.oracle + self.margin,
            words=words,
        )


def alignment(
    model: npt.ArrayLike,
    original: npt.ArrayLike,
    start: npt.ArrayLike,
    directions: Iterable[npt.ArrayLike],
    *,
    oracle: npt.ArrayLike | None = None,
    margin: float = MARGIN,
) -> Alignment:
    """Measure how far a model still stands along the withdrawn site's updates.

    d is the sum of the directions: the site's whole contribution if all of its updates are given.

    Parameters
    ----------
    model, original, start
        Parameters of G_U, G and the initial model G₀, ``(P,)``.
    directions
        Updates Δᵤᵗ of the withdrawn site, ``(P,)`` each.
    oracle
        Parameters of an oracle that began from the same G₀.
    margin
        Largest distance from the oracle that counts as none, fixed beforehand.

    Raises
    ------
    ContributionError
        If there are no directions, or the original did not move along them.
    """
    vectors = [np.asarray(direction, dtype=np.float32) for direction in directions]
    if not vectors:
        raise ContributionError(
            "There is no update of the withdrawn site to compare with.",
            "Keep contributions, or leave it out.",
        )
    origin = np.asarray(start, dtype=np.float64)
    total = np.sum(vectors, axis=0, dtype=np.float64)
    way = float((np.asarray(original, dtype=np.float64) - origin) @ total)
    if way == 0.0:
        raise ContributionError("The original model did not move along the withdrawn site's updates.")
    moved = np.asarray(model, dtype=np.float64) - origin
    length = float(np.linalg.norm(moved))
    basis = orthonormal_basis(vectors)
    share = float(np.linalg.norm(basis.astype(np.float64) @ moved)) / length if length > 0 else 0.0
    cosine = float(moved @ total) / (length * float(np.linalg.norm(total))) if length > 0 else 0.0
    theirs = None
    if oracle is not None:
        theirs = float((np.asarray(oracle, dtype=np.float64) - origin) @ total) / way
    return Alignment(float(moved @ total) / way, theirs, min(share, 1.0), cosine, margin)
