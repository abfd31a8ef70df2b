"""The Gaussian mechanism in closed form, for noise that is added once a round to a whole update."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

from reconsent.errors import ConfigError
from strategies.noise import NoiseSource
from unlearning.parameters import Vector, norm


def epsilon_of(noise_multipliers: Iterable[float], delta: float) -> float:
    """Exact ε at ``delta`` of Gaussian mechanisms one after the other.

    Mechanisms of noise multipliers σᵢ compose to one with 1/σ² = Σ 1/σᵢ² (Dong, Roth & Su 2022, corollary
    3.3), and that one has δ(ε) = Φ(1/(2σ) − εσ) − e^ε Φ(−1/(2σ) − εσ) (Balle & Wang, ICML 2018, theorem 8).

    Parameters
    ----------
    noise_multipliers
        Standard deviation over sensitivity of each.
    delta
        δ.

    Returns
    -------
    0 without a mechanism.
    """
    mu = math.sqrt(math.fsum(1 / sigma**2 for sigma in noise_multipliers))
    if mu == 0 or delta_of(mu, 0.0) <= delta:
        return 0.0
    highest = 1.0
    while delta_of(mu, highest) > delta:
        highest *= 2
    found = brentq(lambda epsilon: delta_of(mu, epsilon) - delta, 0.0, highest, xtol=1e-12, rtol=1e-12)
    return float(found)


def delta_of(mu: float, epsilon: float) -> float:
    """δ at ``epsilon`` of a Gaussian mechanism whose sensitivity is ``mu`` standard deviations."""
    first = log_ndtr(mu / 2 - epsilon / mu)
    second = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    # e^a − e^b without the overflow of e^ε.
    return float(np.exp(first) * -np.expm1(min(second - first, 0.0)))


def noise_multiplier_for(epsilon: float, delta: float, rounds: int) -> float:
    """Smallest noise multiplier with which ``rounds`` mechanisms stay within ``epsilon``.

    Raises
    ------
    ConfigError
        If there is none below a million.
    """

    def excess(log_sigma: float) -> float:
        return epsilon_of([math.exp(log_sigma) / math.sqrt(rounds)], delta) - epsilon

    low, high = math.log(1e-2), math.log(1e6)
    if excess(high) > 0:
        raise ConfigError(f"No noise gives ε = {epsilon:g} at δ = {delta:g}.", "Allow more.")
    if excess(low) <= 0:
        return math.exp(low)
    # A little more than the root: rounding must not carry the last round over the limit.
    return math.exp(float(brentq(excess, low, high, xtol=1e-10))) * (1 + 1e-8)


def clipped(update: Vector, limit: float) -> Vector:
    """``update`` ``(P,)``, scaled down to the norm ``limit`` if it is longer."""
    size = norm(update)
    if size <= limit:
        return update
    # Rounding to float32 may lengthen it again by parts in ten million.
    return (update * (limit / size * (1 - 1e-6))).astype(np.float32)


def noised(update: Vector, deviation: float, source: NoiseSource) -> Vector:
    """``update`` ``(P,)`` plus a Gaussian of standard deviation ``deviation`` in every coordinate."""
    return update + source.normal(update.size, deviation)
