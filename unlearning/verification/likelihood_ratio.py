"""Membership inference by likelihood ratio, patient by patient, with shadow models (LiRA)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reconsent.errors import DataError

Statistics = npt.NDArray[np.float64]

SHADOWS_FOR_OWN_VARIANCE = 64

LIMITS = (
    "The likelihood-ratio attack is the strongest of those made here, and its strength grows with the number "
    "of shadow models; those are trained in a simulation, which a real attacker would have to imitate. The "
    "shadow models are trained with and without each patient, not unlearned: an attacker who also simulates "
    "the unlearning may do better."
)


def likelihood_ratio_scores(
    target: npt.ArrayLike, shadows: npt.ArrayLike, trained_on: npt.ArrayLike
) -> Statistics:
    """Log likelihood ratio of each patient: in the training against out of it.

    log N(φ; μ_in, σ_in²) − log N(φ; μ_out, σ_out²), with the means of each patient over the shadow models
    that were trained on it and that were not. The variances are each patient's own where there are
    ``SHADOWS_FOR_OWN_VARIANCE`` shadow models or more, else one for all patients.

    Parameters
    ----------
    target
        The attacked model's statistic φ of each patient, ``(N,)``: near normal, as −log NMSE.
    shadows
        The same of S shadow models, ``(S, N)``.
    trained_on
        Whether shadow model s was trained on patient n, bool ``(S, N)``.

    Returns
    -------
    array
        ``(N,)``; high for members.

    Raises
    ------
    DataError
        If shapes differ, or a patient is in (or out of) the training of fewer than two shadow models.

    References
    ----------
    Carlini et al., *Membership inference attacks from first principles*, IEEE S&P 2022, algorithm 1 and
    section VI-C (one variance for all with few shadow models).
    """
    phi = np.asarray(target, dtype=np.float64)
    table = np.asarray(shadows, dtype=np.float64)
    inside = np.asarray(trained_on, dtype=np.bool_)
    if phi.ndim != 1 or table.shape != inside.shape or table.shape[1:] != phi.shape:
        raise DataError(
            f"The target's statistics have the shape {phi.shape}, the shadow models' {table.shape}, and "
            f"their training sets {inside.shape}.",
            "They must be (N,), (S, N) and (S, N).",
        )
    if min(inside.sum(axis=0).min(), (~inside).sum(axis=0).min()) < 2:
        raise DataError(
            f"With {table.shape[0]} shadow models, a patient is in or out of the training of fewer than two.",
            "Train more shadow models.",
        )
    mean_in, variance_in = _moments(table, inside)
    mean_out, variance_out = _moments(table, ~inside)
    scores: Statistics = _log_normal(phi, mean_in, variance_in) - _log_normal(phi, mean_out, variance_out)
    return scores


def balanced_memberships(patients: int, shadows: int, *, seed: int) -> npt.NDArray[np.bool_]:
    """Which patients each shadow model is trained on, so that each patient is in half of them.

    Parameters
    ----------
    patients
        How many there are.
    shadows
        An even number of models, 4 or more.
    seed
        Of the draw.

    Returns
    -------
    array
        bool, ``(shadows, patients)``; models 2k and 2k + 1 are each other's complement.

    Raises
    ------
    DataError
        If the number of shadow models is odd or below 4, or there are fewer than two patients.
    """
    if shadows < 4 or shadows % 2 or patients < 2:
        raise DataError(
            f"{shadows} shadow models for {patients} patients give no attack.",
            "Use an even number of shadow models, 4 or more, and two patients or more.",
        )
    rng = np.random.default_rng(seed)
    table = np.empty((shadows, patients), dtype=np.bool_)
    for pair in range(0, shadows, 2):
        chosen = rng.permutation(patients) < patients // 2
        table[pair], table[pair + 1] = chosen, ~chosen
    return table


def _moments(table: Statistics, where: npt.NDArray[np.bool_]) -> tuple[Statistics, Statistics]:
    count = where.sum(axis=0)
    mean = np.where(where, table, 0.0).sum(axis=0) / count
    squares = np.where(where, (table - mean) ** 2, 0.0)
    own = squares.sum(axis=0) / (count - 1)
    if table.shape[0] < SHADOWS_FOR_OWN_VARIANCE:
        own = np.full_like(mean, squares.sum() / (count - 1).sum())
    return mean, np.maximum(own, 1e-12)


def _log_normal(x: Statistics, mean: Statistics, variance: Statistics) -> Statistics:
    result: Statistics = -0.5 * (np.log(2.0 * np.pi * variance) + (x - mean) ** 2 / variance)
    return result
