"""Kolmogorov-Smirnov distances between distributions of errors: Liu & Tsaftaris' ρ, and two-sided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reconsent.errors import DataError
from unlearning.verification.bootstrap import checked
from unlearning.verification.finding import Finding, decide

PERMUTATIONS = 1000
ALPHA = 0.05

LIMITS = (
    "Kolmogorov-Smirnov distances compare the errors of all slices together, not of each. ρ says whether the "
    "model's errors are as unlike those of a model trained on the withdrawn data alone as an oracle's; a "
    "ruined model is unlike them too, so ρ alone cannot tell it from one that forgot, and images that "
    "resemble the other sites' confuse it (Huang et al., MICCAI 2021). Few patients give coarse distances."
)


@dataclass(frozen=True, slots=True)
class ErrorDistributions:
    """Distances between the distributions of a model's, the oracle's, and a reference's errors.

    Attributes
    ----------
    distance
        KS(model, oracle) on the forget data, 0 to 1.
    p_value
        Of a permutation test that exchanges the two models patient by patient: how often two equal models
        would be as far apart.
    rho
        KS(model, query) / KS(oracle, query), where the query model was trained on the withdrawn data alone:
        1 or more means forgotten in the paper's sense; ``None`` without a query model.
    floor
        KS between two oracles, ``None`` with one.
    patients
        How many could be exchanged.
    """

    distance: float
    p_value: float
    rho: float | None
    floor: float | None
    patients: int

    def finding(self, alpha: float = ALPHA) -> Finding:
        """As a finding: the errors must be distributed as the oracle's, or as near as another oracle's."""
        within = self.p_value >= alpha or (self.floor is not None and self.distance <= self.floor)
        # With n patients the smallest possible p-value is 2^(1 - n): fewer than 6 cannot reject anything.
        decidable = not within or 2.0 ** (1 - self.patients) < alpha
        rho = "" if self.rho is None else f" (ρ = {self.rho:.2f})"
        if not decidable:
            words = f"{self.patients} patients are too few to tell the distributions apart."
        elif within:
            words = f"Its errors on the withdrawn scans are spread as the retrained model's are{rho}."
        else:
            words = (
                f"Its errors on the withdrawn scans are spread differently from the retrained model's{rho}."
            )
        return Finding(
            check="error-distribution",
            verdict=decide(within, decidable=decidable),
            value=self.distance,
            unit="KS",
            low=None,
            high=None,
            reference=self.floor,
            accepted_low=None,
            accepted_high=self.floor,
            words=words,
        )


def ks_distance(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Largest difference of two empirical distribution functions, 0 to 1.

    Raises
    ------
    DataError
        If either sample is empty or not finite.
    """
    first, second = (np.sort(checked(sample, None)[0]) for sample in (a, b))
    everything = np.concatenate([first, second])
    below = [np.searchsorted(sample, everything, side="right") / sample.size for sample in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def rho(model: npt.ArrayLike, query: npt.ArrayLike, calibration: npt.ArrayLike) -> float:
    """ρ = KS(model, query) / KS(calibration, query); 1 or more: forgotten, below 1: not.

    Parameters
    ----------
    model
        Errors of the audited model on the query data, ``(slices,)``.
    query
        Those of a model trained on the query data alone.
    calibration
        Those of a model of the same kind that never saw the query data: the oracle, where there is one.

    Raises
    ------
    DataError
        If calibration and query model cannot be told apart: then nothing can be said.

    References
    ----------
    Liu & Tsaftaris, *Have you forgotten? A method to assess if machine learning models have forgotten data*,
    MICCAI 2020, equation 3. There the distributions are of a classifier's outputs, here of errors.
    """
    scale = ks_distance(calibration, query)
    if scale == 0.0:
        raise DataError(
            "The calibration model's errors are distributed as the query model's: ρ is not defined.",
            "Use more slices, or a calibration model trained on other data.",
        )
    return ks_distance(model, query) / scale


def error_distributions(
    model: npt.ArrayLike,
    oracle: npt.ArrayLike,
    patients: Sequence[str] | None = None,
    *,
    query: npt.ArrayLike | None = None,
    others: Sequence[npt.ArrayLike] = (),
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> ErrorDistributions:
    """Compare the errors of a model on the forget data with the oracle's.

    Parameters
    ----------
    model, oracle
        Errors of the same slices in the same order, ``(slices,)``, as log NMSE.
    patients
        Whose slice each is; the permutation test exchanges whole patients.
    query
        Errors of a model trained on the withdrawn data alone.
    others
        Errors of further oracles; their largest distance from the first is the noise floor.
    permutations, seed
        Of the test.

    Raises
    ------
    DataError
        If the arrays do not fit each other, or ρ is not defined.
    """
    ours, members = checked(model, patients)
    theirs, _ = checked(oracle, patients)
    if ours.shape != theirs.shape:
        raise DataError("Errors of model and oracle must be of the same slices.")
    distance = ks_distance(ours, theirs)
    owner = np.empty(ours.size, dtype=np.intp)
    for number, places in enumerate(members):
        owner[places] = number
    rng = np.random.default_rng(seed)
    as_far = 0
    for _ in range(permutations):
        swap = rng.integers(0, 2, len(members)).astype(np.bool_)[owner]
        as_far += ks_distance(np.where(swap, theirs, ours), np.where(swap, ours, theirs)) >= distance - 1e-12
    return ErrorDistributions(
        distance=distance,
        p_value=(1 + as_far) / (1 + permutations),
        rho=None if query is None else rho(ours, query, theirs),
        floor=max((ks_distance(other, theirs) for other in others), default=None),
        patients=len(members),
    )
