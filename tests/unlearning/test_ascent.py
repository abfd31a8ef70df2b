"""Directions and projections against linear algebra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconsent.errors import ContributionError
from unlearning.ascent import (
    ascend,
    orthonormal_basis,
    project_out,
    remove_return,
    unit,
    weighted_contribution,
)
from unlearning.contributions import CachePolicy, ContributionCache
from unlearning.parameters import ParameterLayout, Vector, dot, norm
from unlearning.spool import UpdateSpool


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 12), size=st.integers(12, 60))
def test_basis_is_orthonormal_and_spans_the_vectors(seed: int, count: int, size: int) -> None:
    """BBᵀ = I, and nothing of the input is left outside the span."""
    vectors = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    basis = orthonormal_basis(vectors)
    np.testing.assert_allclose(basis @ basis.T, np.eye(count), atol=1e-5)
    for vector in vectors:
        assert norm(project_out(vector, basis)) < 1e-4 * norm(vector)


def test_dependent_vectors_add_no_direction() -> None:
    """Multiples and zeros do not enter the basis, even when nearly parallel."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 40)).astype(np.float32)
    basis = orthonormal_basis([a, 2 * a, np.zeros(40, np.float32), b, a + b, a + np.float32(1e-7) * b])
    assert basis.shape == (2, 40)


def test_projection_is_idempotent_and_self_adjoint() -> None:
    """Q = I − BᵀB satisfies Q² = Q and ⟨Qx, y⟩ = ⟨x, Qy⟩."""
    rng = np.random.default_rng(3)
    basis = orthonormal_basis(rng.standard_normal((5, 50)).astype(np.float32))
    x, y = rng.standard_normal((2, 50)).astype(np.float32)
    np.testing.assert_allclose(project_out(project_out(x, basis), basis), project_out(x, basis), atol=1e-5)
    assert dot(project_out(x, basis), y) == pytest.approx(dot(x, project_out(y, basis)), abs=1e-4)


def test_return_is_removed_one_sidedly() -> None:
    """What leads back is removed, what leads further is untouched."""
    s = np.array([1.0, 0.0], dtype=np.float32)
    np.testing.assert_allclose(remove_return(np.array([-2.0, 3.0], np.float32), s), [0.0, 3.0])
    np.testing.assert_allclose(remove_return(np.array([2.0, 3.0], np.float32), s), [2.0, 3.0])


def test_ascent_step_has_the_length_asked_for_and_climbs() -> None:
    """θ − αR d lies αR away, and raises a loss whose pseudo-gradient −d is."""
    contribution = np.array([3.0, 4.0], dtype=np.float32)
    after = ascend(np.zeros(2, np.float32), unit(contribution), 2.5)
    np.testing.assert_allclose(after, [-1.5, -2.0], atol=1e-6)
    loss = lambda x: 0.5 * float(np.sum((x - contribution) ** 2))  # noqa: E731
    assert loss(after) > loss(np.zeros(2))


@pytest.mark.parametrize("vector", [np.zeros(4, np.float32), np.array([np.nan, 1], np.float32)])
def test_no_direction_in_nothing(vector: np.ndarray) -> None:
    """A zero or damaged contribution is refused."""
    with pytest.raises(ContributionError, match="no direction"):
        unit(vector)


def test_shifted_is_the_sum_bit_for_bit() -> None:
    """Array by array as in one vector, half precision and doubles included; another size is refused."""
    rng = np.random.default_rng(2)
    arrays = {
        "w": rng.standard_normal((5, 7)).astype(np.float32),
        "n": np.array(5, dtype=np.int64),
        "h": rng.standard_normal(9).astype(np.float16),
        "b": rng.standard_normal(3),
    }
    layout = ParameterLayout.of(arrays)
    update = rng.standard_normal(layout.size).astype(np.float32)
    whole = layout.unflatten(layout.flatten(arrays) + update, arrays)
    found = dict(layout.shifted(arrays, update))
    assert list(found) == list(arrays)
    for name, array in found.items():
        assert array.dtype == arrays[name].dtype and array.tobytes() == whole[name].tobytes()
    with pytest.raises(ContributionError, match="does not fit"):
        dict(layout.shifted(arrays, update[:-1]))


def test_layout_round_trip_keeps_buffers_apart() -> None:
    """Flatten and unflatten restore floats exactly and take integers from the buffers."""
    arrays = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "n": np.array(5, dtype=np.int64),
        "b": np.array([1.5, -2.5], dtype=np.float64),
    }
    layout = ParameterLayout.of(arrays)
    vector = layout.flatten(arrays)
    assert vector.shape == (8,)
    back = layout.unflatten(vector, {**arrays, "n": np.array(9, dtype=np.int64)})
    np.testing.assert_array_equal(back["w"], arrays["w"])
    np.testing.assert_array_equal(back["b"], arrays["b"])
    assert back["b"].dtype == np.float64
    assert back["n"] == 9


def leave_together(directory: Path, examples: dict[str, int], rounds: int = 4) -> tuple[Vector, Vector]:
    """What the cache says ``a`` and ``b`` added together, and what they did: Σ Δ̄ − Δ̄ of the others."""
    rng = np.random.default_rng(5)
    cache, spool = ContributionCache.open(directory / "cache"), UpdateSpool(directory / "spool")
    exact = np.zeros(20_000)
    total = sum(examples.values())
    for number in range(1, rounds + 1):
        updates = {site: rng.standard_normal(exact.size).astype(np.float32) for site in examples}
        mean = sum(n / total * updates[site].astype(np.float64) for site, n in examples.items())
        others = {site: n for site, n in examples.items() if site not in "ab"}
        without = sum(
            n / sum(others.values()) * updates[site].astype(np.float64) for site, n in others.items()
        )
        exact += mean - without
        for site, update in updates.items():
            spool.put(site, update, examples=examples[site], norm=norm(update))
        cache.record(number, spool, np.asarray(mean, dtype=np.float32))
        spool.clear()
    leavers = [site for site in examples if site in "ab"]
    return weighted_contribution(cache, leavers, kind="specific"), exact.astype(np.float32)


@pytest.mark.parametrize("b", [2, 5])
def test_two_leavers_are_exact_together(tmp_path: Path, b: int) -> None:
    """With shares that stay the same, equal or not, it is what both added together, to rounding."""
    found, exact = leave_together(tmp_path, {"a": 2, "b": b, "c": 3, "d": 3})
    np.testing.assert_allclose(found, exact, atol=1e-5)


def test_one_leaver_is_exact(tmp_path: Path) -> None:
    """The specific contribution of one site is what it added, to rounding; bit for bit its running vector."""
    found, exact = leave_together(tmp_path, {"a": 3, "c": 3, "d": 4})
    np.testing.assert_allclose(found, exact, atol=1e-5)
    running = ContributionCache.open(tmp_path / "cache").running("a", "specific")
    np.testing.assert_array_equal(found, running)


def test_leavers_together_weigh_what_they_did_in_the_rounds_they_shared(tmp_path: Path) -> None:
    """The factor is the share-weighted mean of (1 − p)/(1 − P) over the site's rounds, up to an anchor.

    It is 1 as long as no round has both; a round without anybody else does not count.
    """
    rng = np.random.default_rng(8)
    cache = ContributionCache.open(tmp_path / "cache", CachePolicy(anchor_rounds=frozenset({2})))
    spool = UpdateSpool(tmp_path / "spool")
    rounds = [{"a": 1, "c": 1}, {"b": 1, "c": 1}, {"a": 1, "b": 2, "c": 1}, {"a": 1, "b": 1}]
    for number, examples in enumerate(rounds, start=1):
        for site, n in examples.items():
            spool.put(site, rng.standard_normal(50).astype(np.float32), examples=n, norm=1.0)
        shares = spool.weights()
        cache.record(number, spool, sum(np.float32(p) * spool.get(site) for site, p in shares.items()))
        spool.clear()
    apart = cache.running("a", "specific", at_round=2) + cache.running("b", "specific", at_round=2)
    np.testing.assert_array_equal(
        weighted_contribution(cache, ["a", "b"], kind="specific", at_round=2), apart
    )
    weights = {"a": (0.5 * 1 + 0.25 * 3) / 0.75, "b": (0.5 * 1 + 0.5 * 2) / 1.0}
    expected = sum(weight * cache.running(site, "specific") for site, weight in weights.items())
    found = weighted_contribution(cache, ["a", "b"], kind="specific")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
