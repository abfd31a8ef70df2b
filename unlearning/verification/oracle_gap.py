"""The oracle gap on one set: volume by volume, with its interval, its test, and the noise floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from unlearning.verification.bootstrap import LEVEL, RESAMPLES, Interval, bootstrap_mean
from unlearning.verification.equivalence import (
    ALPHA,
    Equivalence,
    beside_oracles,
    equivalence_test,
    finding_of,
)
from unlearning.verification.finding import Finding

LIMITS = (
    "The oracle gap compares accuracies, which are averages: two models may be equally accurate and still "
    "differ in what they know of a single patient. It needs the oracle, which only a simulation (or a full "
    "retraining) has. With one oracle, a gap smaller than that between two retrainings is chance."
)


@dataclass(frozen=True, slots=True)
class OracleGap:
    """Accuracy of a model minus that of the oracle on one set.

    Attributes
    ----------
    name
        Of the set.
    interval
        Mean gap with its bootstrap interval over patients.
    equivalence
        The two one-sided tests.
    floor
        Standard deviation, over oracles that differ in their seed, of the mean accuracy; ``None`` with one.
    oracles
        How many there were.
    """

    name: str
    interval: Interval
    equivalence: Equivalence
    floor: float | None
    oracles: int

    @property
    def gap(self) -> float:
        """Mean gap; zero is perfect, in both directions."""
        return self.interval.mean

    @property
    def chance(self) -> float | None:
        """Half width of the range in which one more oracle would lie with a probability of 0.95.

        t₀.₉₇₅(K−1) · s · √(1 + 1/K), the prediction interval of a normal variable.
        """
        if self.floor is None:
            return None
        spread = self.floor * float(np.sqrt(1.0 + 1.0 / self.oracles))
        return float(stats.t.ppf(0.975, self.oracles - 1)) * spread

    def finding(self) -> Finding:
        """The gap as a finding: it passes if the models are equivalent, whichever way they might differ."""
        test = self.equivalence
        if not test.decidable:
            words = f"Too few patients to test it: the gap on {self.name} is {self.gap:+.2f} dB."
        elif test.equivalent:
            words = (
                f"On {self.name} the model is as accurate as one retrained without the site, "
                f"within {test.margin:g} dB."
            )
        elif test.different:
            way = "more" if self.gap > 0 else "less"
            words = f"On {self.name} the model is {way} accurate than the retrained one ({self.gap:+.2f} dB)."
        else:
            words = (
                f"On {self.name} the patients are too few, or too different, to show that the gap "
                f"({self.gap:+.2f} dB) is below {test.margin:g} dB."
            )
        return finding_of(
            test, f"gap/{self.name}", value=self.gap, unit="dB", reference=self.chance, words=words
        )


def oracle_gap(
    name: str,
    model: npt.ArrayLike,
    oracles: npt.ArrayLike,
    patients: Sequence[str] | None = None,
    *,
    margin: float,
    alpha: float = ALPHA,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> OracleGap:
    """Compare a model with one or several oracles on the same volumes.

    Parameters
    ----------
    name
        Of the set: ``retain-test``, ``forget-test``, ``forget-train``, or any other.
    model
        Accuracy of each volume in dB, ``(volumes,)``; larger is better.
    oracles
        The same of K oracles that differ only in their seed, ``(K, volumes)`` or ``(volumes,)``.
    patients
        Whose volume each is; ``None``: each is a patient.
    margin
        Largest gap that counts as none, in dB, fixed beforehand.
    alpha, level, resamples, seed
        Of the test and of the interval.

    Raises
    ------
    DataError
        If the shapes do not fit, or a value is not finite.
    ConfigError
        If the margin is not positive.
    """
    ours, theirs = beside_oracles(model, oracles)
    differences = ours - theirs.mean(axis=0)
    count = theirs.shape[0]
    return OracleGap(
        name=name,
        interval=bootstrap_mean(differences, patients, level=level, resamples=resamples, seed=seed),
        equivalence=equivalence_test(differences, margin=margin, patients=patients, alpha=alpha),
        floor=float(theirs.mean(axis=1).std(ddof=1)) if count > 1 else None,
        oracles=count,
    )
