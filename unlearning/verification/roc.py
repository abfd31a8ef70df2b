"""Receiver operating characteristic of an attack: how well scores tell members from others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reconsent.errors import DataError
from unlearning.verification.bootstrap import LEVEL, RESAMPLES

Scores = npt.NDArray[np.float64]

LIMITS = (
    "A false-positive rate of 1 % can be measured with a hundred non-members or more, one of 0.1 % with a "
    "thousand. With fewer, the true-positive rate is given at no false positive at all."
)


@dataclass(frozen=True, slots=True)
class Roc:
    """How well an attack tells members from non-members.

    Attributes
    ----------
    auc
        Area under the curve: the chance that a member scores higher than a non-member; 0.5 is guessing.
    low, high
        Bootstrap interval of the area, members and non-members drawn separately.
    tpr_at_1_percent, tpr_at_01_percent
        Share of members found at no more than 1 % and 0.1 % false alarms.
    false_positive_rates, true_positive_rates
        The curve, from (0, 0) to (1, 1).
    members, others
        How many there were.
    """

    auc: float
    low: float
    high: float
    tpr_at_1_percent: float
    tpr_at_01_percent: float
    false_positive_rates: tuple[float, ...]
    true_positive_rates: tuple[float, ...]
    members: int
    others: int


def roc(
    members: npt.ArrayLike,
    others: npt.ArrayLike,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Roc:
    """Curve, area and true-positive rates of scores that are high for members.

    Parameters
    ----------
    members, others
        Scores of those that were trained on and of those that were not, ``(M,)`` and ``(N,)``. Give one score
        a patient where slices of one patient would not be independent.
    level, resamples, seed
        Of the interval of the area.

    Raises
    ------
    DataError
        If there are none of either, or scores that are not finite.

    References
    ----------
    Carlini et al., *Membership inference attacks from first principles*, IEEE S&P 2022 (true-positive rate at
    a low false-positive rate); Hanley & McNeil, Radiology 143:29 (1982) (area).
    """
    inside, outside = _checked(members, "members"), _checked(others, "non-members")
    scores = np.concatenate([inside, outside])
    labels = np.concatenate([np.ones(inside.size), np.zeros(outside.size)])
    order = np.argsort(-scores, kind="stable")
    # Equal scores are one point of the curve: a threshold cannot part them.
    last = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    found = np.cumsum(labels[order])[last] / inside.size
    alarms = np.cumsum(1.0 - labels[order])[last] / outside.size
    found, alarms = np.insert(found, 0, 0.0), np.insert(alarms, 0, 0.0)
    wins = (inside[:, None] > outside[None, :]) + 0.5 * (inside[:, None] == outside[None, :])
    area = float(wins.mean())
    low, high = _interval(wins, level, resamples, seed)
    return Roc(
        auc=area,
        low=min(low, area),
        high=max(high, area),
        tpr_at_1_percent=float(found[alarms <= 0.01].max()),
        tpr_at_01_percent=float(found[alarms <= 0.001].max()),
        false_positive_rates=tuple(float(x) for x in alarms),
        true_positive_rates=tuple(float(x) for x in found),
        members=inside.size,
        others=outside.size,
    )


def _interval(wins: Scores, level: float, resamples: int, seed: int) -> tuple[float, float]:
    """Percentile interval of the mean of ``wins`` ``(M, N)`` when rows and columns are drawn anew."""
    rng = np.random.default_rng(seed)
    count, others = wins.shape
    areas = np.empty(resamples)
    for index in range(resamples):
        # How often each is drawn: cheaper than drawing the matrix itself.
        rows = np.bincount(rng.integers(0, count, count), minlength=count)
        columns = np.bincount(rng.integers(0, others, others), minlength=others)
        areas[index] = rows @ wins @ columns / wins.size
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(areas, [tail, 100.0 - tail])
    return float(low), float(high)


def _checked(scores: npt.ArrayLike, who: str) -> Scores:
    table = np.asarray(scores, dtype=np.float64).reshape(-1)
    if table.size == 0 or not np.isfinite(table).all():
        raise DataError(
            f"An attack needs finite scores of {who}; there are {table.size}, "
            f"{int(table.size - np.isfinite(table).sum())} of them not finite.",
            "Hold out patients that were never trained on.",
        )
    return table
