"""Where the randomness of differential privacy comes from.

A guarantee of differential privacy assumes that nobody else can compute the noise. So in a deployment it
comes from the operating system's cryptographic generator, and is different each time. In a simulation there
is nobody to protect, and one seed must give one result: there, and only there, it comes from a seed.
"""

from __future__ import annotations

import math
import os
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

_CHUNK = 1 << 18
_DRAWS = 4
"""Gaussians summed for one value: the rounding of a single one can betray what it was added to."""


class NoiseSource(Protocol):
    """Random numbers for noise and for sampling."""

    def normal(self, size: int, deviation: float) -> npt.NDArray[np.float32]:
        """``(size,)`` independent Gaussians of mean 0."""
        ...

    def uniform(self, size: int) -> npt.NDArray[np.float64]:
        """``(size,)`` independent numbers from 0 to below 1."""
        ...


class SeededNoise:
    """Reproducible, for simulations. Whoever knows the seed can subtract the noise.

    Parameters
    ----------
    seed
        The same gives the same numbers, bit for bit.
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.Philox(seed))

    def normal(self, size: int, deviation: float) -> npt.NDArray[np.float32]:
        """``(size,)`` independent Gaussians of mean 0."""
        return (self._generator.standard_normal(size) * deviation).astype(np.float32)

    def uniform(self, size: int) -> npt.NDArray[np.float64]:
        """``(size,)`` independent numbers from 0 to below 1."""
        return self._generator.random(size)


class SecureNoise:
    """From the operating system's cryptographic generator.

    A Gaussian is the inverse distribution function of 52 random bits; each value is the sum of four such,
    halved, which hides the grid that rounding leaves (Mironov, CCS 2012; Holohan & Braghin, ESORICS 2021).
    """

    def normal(self, size: int, deviation: float) -> npt.NDArray[np.float32]:
        """``(size,)`` independent Gaussians of mean 0."""
        values = np.empty(size, np.float32)
        for start in range(0, size, _CHUNK):
            count = min(_CHUNK, size - start)
            sums = sum(ndtri(_open_interval(count)) for _ in range(_DRAWS))
            values[start : start + count] = sums * (deviation / math.sqrt(_DRAWS))
        return values

    def uniform(self, size: int) -> npt.NDArray[np.float64]:
        """``(size,)`` independent numbers from 0 to below 1."""
        bits = np.frombuffer(os.urandom(8 * size), np.uint64) >> np.uint64(11)
        return bits.astype(np.float64) * 2.0**-53


def _open_interval(size: int) -> npt.NDArray[np.float64]:
    """Uniform numbers off 0 and 1 by half a step of their grid: there a Gaussian would be infinite."""
    bits = np.frombuffer(os.urandom(8 * size), np.uint64) >> np.uint64(12)
    return (bits.astype(np.float64) + 0.5) * 2.0**-52


def noise_source(seed: int | None) -> NoiseSource:
    """Seeded noise in a simulation; without a seed the secure one."""
    return SecureNoise() if seed is None else SeededNoise(seed)
