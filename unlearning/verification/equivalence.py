"""Two one-sided tests of whether two models are *equal*, up to a margin that was fixed beforehand.

A test that finds no difference shows nothing: with few patients it never finds one. Here the burden is the
other way round: the models count as different until the data show that they are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from reconsent.errors import ConfigError, DataError
from unlearning.verification.bootstrap import checked
from unlearning.verification.finding import Finding, decide

Numbers = npt.NDArray[np.float64]

ALPHA = 0.05

LIMITS = (
    "Equivalence is shown up to the margin, not beyond, and on average over patients: single patients may "
    "differ by more. The test takes the patients' mean differences as roughly normal. With one patient it "
    "cannot be made. A margin chosen after seeing the results would make it worthless."
)


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Outcome of the two one-sided tests.

    Attributes
    ----------
    mean
        Mean difference over patients.
    low, high
        Interval of confidence 1 − 2α; it lies within ± margin exactly if the models are equivalent.
    margin, alpha
        As fixed beforehand.
    p_value
        The larger of the two one-sided p-values: chance of such data if the models differed by the margin.
    patients
        How many differences there were; fewer than two decide nothing.
    """

    mean: float
    low: float
    high: float
    margin: float
    alpha: float
    p_value: float
    patients: int

    @property
    def decidable(self) -> bool:
        """Whether there were enough patients for a test."""
        return self.patients >= 2

    @property
    def equivalent(self) -> bool:
        """Whether the difference lies within ± margin, at an error rate of alpha."""
        return self.decidable and self.p_value < self.alpha

    @property
    def different(self) -> bool:
        """Whether the difference lies *outside* ± margin: the whole interval is beyond it."""
        return self.decidable and (self.low > self.margin or self.high < -self.margin)


def finding_of(
    test: Equivalence, check: str, *, value: float, unit: str, reference: float | None, words: str
) -> Finding:
    """The outcome as a finding: it passes if equivalence is shown, and is undecided between.

    Parameters
    ----------
    test
        The two one-sided tests.
    check, value, unit, reference, words
        As of the finding.
    """
    return Finding(
        check=check,
        verdict=decide(test.equivalent, decidable=test.decidable and (test.equivalent or test.different)),
        value=value,
        unit=unit,
        low=test.low if test.decidable else None,
        high=test.high if test.decidable else None,
        reference=reference,
        accepted_low=-test.margin,
        accepted_high=test.margin,
        words=words,
    )


def beside_oracles(model: npt.ArrayLike, oracles: npt.ArrayLike) -> tuple[Numbers, Numbers]:
    """Figures of a model, ``(volumes,)``, and of K oracles, ``(K, volumes)``, on the same volumes.

    Raises
    ------
    DataError
        If the shapes do not fit.
    """
    ours = np.asarray(model, dtype=np.float64)
    theirs = np.atleast_2d(np.asarray(oracles, dtype=np.float64))
    if ours.ndim != 1 or theirs.shape[1] != ours.size:
        raise DataError(
            f"The model has figures of the shape {ours.shape}, the oracles {theirs.shape}.",
            "Measure all of them on the same volumes.",
        )
    return ours, theirs


def equivalence_test(
    differences: npt.ArrayLike,
    *,
    margin: float,
    patients: Sequence[str] | None = None,
    alpha: float = ALPHA,
) -> Equivalence:
    """Test whether a mean difference lies within ± ``margin``.

    H₀: |μ| ≥ margin is rejected if both t-tests, of μ ≤ −margin and of μ ≥ margin, reject at level α.

    Parameters
    ----------
    differences
        Model minus oracle of each volume, ``(volumes,)``, as dB.
    margin
        Largest difference that counts as none, in the same unit; fix it before measuring.
    patients
        Whose volume each is; a patient's volumes are averaged first.
    alpha
        Chance of calling models equivalent that differ by the margin.

    Raises
    ------
    ConfigError
        If the margin is not positive.
    DataError
        If the differences are none, not finite, or not one a patient's volume.

    References
    ----------
    Schuirmann, *A comparison of the two one-sided tests procedure…*, J Pharmacokinet Biopharm 15:657 (1987).
    """
    if not margin > 0:
        raise ConfigError(f"An equivalence margin of {margin} is not positive.", "Use one above 0.")
    table, members = checked(differences, patients)
    means = np.array([table[where].mean() for where in members])
    count, mean = means.size, float(means.mean())
    if count < 2:
        return Equivalence(mean, mean, mean, margin, alpha, 1.0, count)
    error = float(means.std(ddof=1)) / float(np.sqrt(count))
    if error == 0.0:
        p_value = 0.0 if abs(mean) < margin else 1.0
        return Equivalence(mean, mean, mean, margin, alpha, p_value, count)
    distribution = stats.t(count - 1)
    lower = float(distribution.sf((mean + margin) / error))
    upper = float(distribution.cdf((mean - margin) / error))
    half = float(distribution.ppf(1.0 - alpha)) * error
    return Equivalence(mean, mean - half, mean + half, margin, alpha, max(lower, upper), count)
