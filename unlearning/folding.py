"""What a site's update adds to its running contributions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from reconsent.errors import ContributionError
from reconsent.files import Part
from unlearning.contribution_files import StoredFile
from unlearning.parameters import Vector, dot
from unlearning.vector_files import header

RunningKind = Literal["sum", "specific"]
KINDS: tuple[RunningKind, ...] = get_args(RunningKind)

_BLOCK = 2**18
"""Numbers at a time."""


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
        Ψ so far, see :class:`FoldedPair`.
    """

    site: str
    round: int
    share: float
    norm: float
    decay: float
    file: StoredFile | None
    sensitivity: float = 0.0


class FoldedPair:
    """The file of a site's running pair after a round, as it is computed: the pair is never whole in memory.

    Iterate over its parts once.

    Parameters
    ----------
    fold
        The site's part of the round.
    before
        The pair so far, in blocks, by name and in the order of the names; ``None`` if there is none.
    delta
        The site's update Δ ``(P,)``.
    mean
        The round's weighted average Δ̄ ``(P,)``.

    Attributes
    ----------
    sensitivity
        Once iterated: Ψ after the round, the length of the path that the site added to the model's.
        Ψ ← (decay) Ψ + p/(1 − p) ‖Δ − Δ̄‖ bounds how far the model is from one trained without the site, to
        first order and for convex losses (SIFU's bounded sensitivity; Fraboni et al., AISTATS 2024).
    """

    def __init__(
        self, fold: Fold, before: Iterable[tuple[str, Vector]] | None, delta: Vector, mean: Vector
    ) -> None:
        self._fold, self._delta, self._mean = fold, delta, mean
        self._before = _nothing(delta.size) if before is None else before
        self.sensitivity = math.nan

    def __iter__(self) -> Iterator[Part]:
        """The parts.

        Raises
        ------
        ContributionError
            If the pair so far has another size than the update.
        """
        fold, size = self._fold, self._delta.size
        yield header(dict.fromkeys(KINDS, size), "float32")
        ends, squares, fits = dict.fromkeys(map(str, KINDS), 0), 0.0, True
        for name, block in self._before:
            place = slice(ends.get(name, size), ends.get(name, size) + block.size)
            fits = fits and place.stop <= size
            if not fits:
                continue  # If the file is altered, its end says so.
            ends[name] = place.stop
            if name == "sum":
                after = block + np.float32(fold.share) * self._delta[place]
            else:
                added = specific_contribution(self._delta[place], self._mean[place], fold.share)
                squares += dot(added, added)
                after = block * np.float32(fold.decay) + added
            yield after.view(np.uint8).data
        if not fits or set(ends.values()) != {size}:
            raise ContributionError(
                f"What is kept of site '{fold.site}' is of another model than its update ({size})."
            )
        self.sensitivity = fold.decay * fold.sensitivity + math.sqrt(squares)


def _nothing(size: int) -> Iterator[tuple[str, Vector]]:
    for name in sorted(KINDS):
        for begin in range(0, size, _BLOCK):
            yield name, np.zeros(min(_BLOCK, size - begin), np.float32)


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
