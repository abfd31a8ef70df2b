"""Confidence intervals by resampling patients: slices and volumes of one patient are not independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reconsent.errors import DataError

Values = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95

LIMITS = (
    "Intervals come from resampling the patients at hand. They cover chance in the choice of patients, not "
    "chance in the training (that is the noise floor), and are too narrow for fewer than about ten patients."
)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval.

    Attributes
    ----------
    mean
        Over all values.
    low, high
        Bounds; equal to the mean if there is only one patient, which says nothing about others.
    level
        Confidence, 0 to 1.
    patients
        How many were resampled.
    """

    mean: float
    low: float
    high: float
    level: float
    patients: int


def bootstrap_mean(
    values: npt.ArrayLike,
    patients: Sequence[str] | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a mean over volumes; whole patients are drawn with replacement.

    Parameters
    ----------
    values
        One number a volume, ``(volumes,)``.
    patients
        Whose volume each is; ``None``: each volume is a patient.
    level
        Confidence.
    resamples
        How often to draw.
    seed
        Of the drawing.

    Raises
    ------
    DataError
        If there are no values, values that are not finite, or another number of patients.

    References
    ----------
    Efron & Tibshirani, *An Introduction to the Bootstrap* (1993), chapters 8 and 13 (percentile interval,
    units of resampling).
    """
    table, members = checked(values, patients)
    sums = np.array([table[where].sum() for where in members])
    counts = np.array([len(where) for where in members], dtype=np.float64)

    def mean(drawn: npt.NDArray[np.intp]) -> Values:
        result: Values = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        return result

    low, high = percentiles(mean, len(members), level=level, resamples=resamples, seed=seed)
    centre = float(table.mean())
    return Interval(centre, min(low, centre), max(high, centre), level, len(members))


def percentiles(
    statistic: Callable[[npt.NDArray[np.intp]], Values],
    patients: int,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bounds of a statistic of drawn patients.

    Parameters
    ----------
    statistic
        From indices ``(resamples, patients)`` to ``(resamples,)``.
    patients
        How many there are.
    level, resamples, seed
        As for :func:`bootstrap_mean`.
    """
    drawn = np.random.default_rng(seed).integers(0, patients, size=(resamples, patients))
    found = statistic(drawn)
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(found, [tail, 100.0 - tail])
    return float(low), float(high)


def checked(
    values: npt.ArrayLike, patients: Sequence[str] | None
) -> tuple[Values, list[npt.NDArray[np.intp]]]:
    """``values`` as an array ``(volumes,)``, and for each patient where its volumes are.

    Raises
    ------
    DataError
        If there are no values, values that are not finite, or another number of patients.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 1 or table.size == 0 or not np.isfinite(table).all():
        raise DataError(
            f"Evidence was asked of an array of the shape {table.shape} "
            f"with {int(np.size(table) - np.isfinite(table).sum())} values that are not finite.",
            "Give one finite number a volume.",
        )
    if patients is None:
        return table, [np.array([place]) for place in range(table.size)]
    if len(patients) != table.size:
        raise DataError(
            f"There are {table.size} values, but patients are given for {len(patients)}.",
            "Name the patient of each value.",
        )
    names = np.asarray(patients)
    return table, [np.flatnonzero(names == name) for name in sorted(set(patients))]
