"""Who is in a step of DP-SGD: the draw that the accountants assume, and the one that Opacus makes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from scipy.stats import binom, norm

from client.privacy.training import poisson_draw
from strategies.noise import NoiseSource, SecureNoise, SeededNoise

UNITS, RATE, DRAWS = 12, 0.3, 10_000
LARGE = 8
"""Sizes from here on are counted together: singly they are too rare for the normal approximation."""
Z = norm.isf(1e-12)
"""Standard deviations that the estimate of a right draw does not reach, not even without a seed."""


def ours(source: NoiseSource) -> npt.NDArray[np.float64]:
    """``(DRAWS, UNITS)``, 1 where a unit is in a step."""
    table = np.zeros((DRAWS, UNITS))
    for row in table:
        row[poisson_draw(UNITS, RATE, source)] = 1
    return table


def of_opacus() -> npt.NDArray[np.float64]:
    """The same by Opacus' sampler."""
    sampler = UniformWithReplacementSampler(
        num_samples=UNITS, sample_rate=RATE, generator=torch.Generator().manual_seed(5), steps=DRAWS
    )
    table = np.zeros((DRAWS, UNITS))
    for row, drawn in zip(table, sampler, strict=True):
        row[drawn] = 1
    return table


@pytest.mark.parametrize(
    "draw",
    [lambda: ours(SeededNoise(5)), lambda: ours(SecureNoise()), of_opacus],
    ids=["seeded", "secure", "opacus"],
)
def test_each_unit_is_drawn_by_itself(draw: Callable[[], npt.NDArray[np.float64]]) -> None:
    """Of units, pairs, successive steps and sizes each has the chance of independent draws, as in Opacus."""
    table = draw()

    def near(seen: npt.NDArray[np.float64], chance: npt.NDArray[np.float64] | float, number: int) -> None:
        allowed = Z * np.sqrt(chance * (1 - np.asarray(chance)) / number)
        assert np.all(np.abs(seen - chance) <= allowed)

    near(table.mean(0), RATE, DRAWS)
    together = (table.T @ table / DRAWS)[np.triu_indices(UNITS, 1)]
    near(together, RATE**2, DRAWS)
    # Successive steps of each unit: pairs that do not overlap.
    near((table[::2] * table[1::2]).mean(0), RATE**2, DRAWS // 2)
    sizes = np.bincount(np.minimum(table.sum(1).astype(int), LARGE), minlength=LARGE + 1) / DRAWS
    expected = binom.pmf(np.arange(LARGE + 1), UNITS, RATE)
    expected[LARGE] = binom.sf(LARGE - 1, UNITS, RATE)
    near(sizes, expected, DRAWS)
    assert sizes[0] > 0, "an empty step is a step"


@pytest.mark.parametrize(("rate", "most"), [(1.0, UNITS), (1e-300, 0)])
def test_ends_of_the_range(rate: float, most: int) -> None:
    """At the rate 1 everybody is in every step; at the least one nobody ever."""
    assert all(len(poisson_draw(UNITS, rate, SecureNoise())) == most for _ in range(100))
