"""What DP-SGD spends: Opacus' accountants, over mechanisms that were recorded."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from opacus.accountants import create_accountant
from opacus.accountants.utils import get_noise_multiplier

from reconsent.errors import ConfigError

AccountantName = Literal["rdp", "prv"]

_COARSE = 100.0
"""ε above which the bound by Rényi divergences is good enough: the other one's grid would take minutes."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """Some steps of DP-SGD with the same settings.

    Attributes
    ----------
    noise_multiplier
        σ: standard deviation of the noise over the clipping norm.
    sample_rate
        q: chance of each unit to be in a step, independently (Poisson sampling).
    steps
        How many.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int


def epsilon_spent(mechanisms: Iterable[Mechanism], delta: float, accountant: AccountantName = "rdp") -> float:
    """ε at ``delta`` of all ``mechanisms`` one after the other; 0 if there are none.

    By Rényi differential privacy (Mironov 2017; Mironov, Talwar & Zhang 2019) or by numerical composition of
    privacy loss random variables (Gopi, Lee & Wutschitz 2021), both by Opacus (above ε = 100
    always by the former, which is an upper bound as well). Neighbouring data sets differ by one unit that is
    there or not.
    """
    return _epsilon(_merged(mechanisms), delta, accountant)


@lru_cache(maxsize=256)
def _epsilon(mechanisms: tuple[Mechanism, ...], delta: float, accountant: AccountantName) -> float:
    if not mechanisms:
        return 0.0
    if accountant == "prv" and (bound := _epsilon(mechanisms, delta, "rdp")) > _COARSE:
        return bound
    counting = create_accountant(mechanism=accountant)
    counting.history = [(m.noise_multiplier, m.sample_rate, m.steps) for m in mechanisms]
    with warnings.catch_warnings():
        # Opacus warns where the best order is at the end of its list: the bound holds, and is only not tight.
        warnings.simplefilter("ignore", UserWarning)
        # PRV takes the logarithm of 1 − q, which is −∞, as it should be, where everybody is in every step.
        warnings.filterwarnings("ignore", "divide by zero", RuntimeWarning)
        epsilon = float(counting.get_epsilon(delta=delta))
    # At a large δ the conversion from Rényi divergences may end below 0, which says no more than 0.
    return max(0.0, epsilon) if math.isfinite(epsilon) else math.inf


def _merged(mechanisms: Iterable[Mechanism]) -> tuple[Mechanism, ...]:
    """The same settings together: composition does not depend on the order, and fewer entries are faster."""
    steps: dict[tuple[float, float], int] = {}
    for mechanism in mechanisms:
        key = (mechanism.noise_multiplier, mechanism.sample_rate)
        steps[key] = steps.get(key, 0) + mechanism.steps
    return tuple(Mechanism(sigma, q, n) for (sigma, q), n in sorted(steps.items()) if n)


@lru_cache(maxsize=64)
def noise_multiplier_for(
    epsilon: float, delta: float, sample_rate: float, steps: int, accountant: AccountantName = "rdp"
) -> float:
    """A noise multiplier with which ``steps`` steps stay within ``epsilon``, and within 0.01 of it.

    Raises
    ------
    ConfigError
        If no noise below Opacus' largest does.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=sample_rate,
                steps=steps,
                accountant=accountant,
            )
    except ValueError:
        raise ConfigError(
            f"No noise gives ε = {epsilon:g} at δ = {delta:g} after {steps} steps at rate {sample_rate:g}.",
            "Allow a larger ε, or train fewer rounds.",
        ) from None
    return float(found)


def history_of(mechanisms: Sequence[Mechanism]) -> list[tuple[float, float, int]]:
    """As Opacus' accountants keep it."""
    return [(m.noise_multiplier, m.sample_rate, m.steps) for m in _merged(mechanisms)]
