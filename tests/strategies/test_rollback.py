"""Going back: exactly, and to SIFU's choice of anchor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reconsent.errors import ContributionError
from strategies import ContributionAveraging, Departure, build_method
from strategies.local_grid import LocalGrid
from tests.linear_app import quadratic_app
from tests.quadratic_unlearning import (
    CENTRES,
    LEAVER,
    NODES,
    RATE,
    REMAINING,
    ROUNDS,
    SHARE,
    START,
    path,
    theta,
    trained,
    unlearn,
    update,
)
from unlearning.contributions import CachePolicy, ContributionCache


def test_a_site_that_was_in_from_the_start_is_forgotten_by_retraining(tmp_path: Path) -> None:
    """Going back to round 0 and repeating all rounds without the site is the oracle, bit for bit."""
    grid, models, cache = trained(tmp_path)
    strategy, outcomes, after = unlearn("rollback", {}, grid, models, cache)
    oracle = build_method("retrain", {}, strategy.departure)
    expected = oracle.start(grid, START, num_rounds=oracle.num_rounds).arrays
    assert (strategy.start_round, len(outcomes)) == (0, ROUNDS)
    np.testing.assert_array_equal(after, theta(expected))


def test_a_late_joiner_is_forgotten_exactly_by_the_rounds_since(tmp_path: Path) -> None:
    """The fourth site joins in round 9: from the model of round 8 the oracle is 12 rounds away."""
    grid = LocalGrid(quadratic_app(CENTRES, rate=RATE), NODES)
    cache = ContributionCache.open(tmp_path, CachePolicy())
    models = {0: START}
    for rounds, barred in ((8, {LEAVER}), (12, set())):
        strategy = ContributionAveraging(cache=cache, barred=barred)
        last = max(models)
        for outcome in strategy.rounds(grid, models[last], rounds, first_round=last + 1):
            strategy.commit(outcome.round)
            models[outcome.round] = outcome.arrays
    grid.sent.clear()
    rollback, outcomes, after = unlearn("rollback", {}, grid, models, cache, kept=(4, 8, 12))
    assert rollback.start_round == 8
    assert [rollback.told_round(o.round) for o in outcomes] == list(range(9, 21))
    np.testing.assert_allclose(after, path(20, REMAINING), atol=1e-5)
    assert {m.metadata.dst_node_id for m in grid.sent} == {1, 2, 3}


def sensitivity(last: int) -> float:
    """Ψ by hand: Σ p/(1 − p) ‖Δ_u − Δ̄‖ with Δ̄ᵗ = Σ pᵢ Δᵢᵗ."""
    total = 0.0
    for t in range(1, last + 1):
        mean = sum(n / 10 * update(i, t) for i, n in ((1, 2), (2, 3), (3, 4), (4, 1)))
        total += SHARE / (1 - SHARE) * float(np.linalg.norm(update(4, t) - mean))
    return total


def test_sensitivity_is_recorded_as_the_cache_grows(tmp_path: Path) -> None:
    """Ψ at an anchor and at the end is the sum of the lengths of what the site added beyond the others."""
    _, _, cache = trained(tmp_path, anchor_rounds=frozenset({5}))
    assert cache.sensitivity(LEAVER, 5) == pytest.approx(sensitivity(5), rel=1e-5)
    assert cache.sensitivity(LEAVER, ROUNDS) == pytest.approx(sensitivity(ROUNDS), rel=1e-5)
    assert cache.sensitivity(LEAVER, 0) == 0.0


@pytest.mark.parametrize(("residue", "anchor"), [(0.4, 8), (0.39, 4), (0.9, 12)])
def test_the_anchor_is_the_newest_with_little_of_the_site(
    residue: float, anchor: int, tmp_path: Path
) -> None:
    """Of anchors after 4, 8 and 12 of 20 equal rounds, q = 0.4 chooses 8 and anything less 4."""
    assert sensitivity(8) / sensitivity(ROUNDS) == pytest.approx(0.4, abs=1e-6)
    grid, models, cache = trained(tmp_path, anchor_rounds=frozenset({4, 8, 12}))
    settings = {"to": "anchor", "residue": residue + 1e-4}
    strategy, outcomes, after = unlearn("rollback", settings, grid, models, cache, kept=(4, 8, 12))
    assert strategy.start_round == anchor
    assert len(outcomes) == 2
    np.testing.assert_allclose(after, path(2, REMAINING, theta(models[anchor])), atol=1e-5)


def test_without_an_anchor_far_enough_back_it_says_which_there_are(tmp_path: Path) -> None:
    """The kept anchors and the site's part in each are named, and what to do."""
    grid, models, cache = trained(tmp_path, anchor_rounds=frozenset({12}))
    with pytest.raises(ContributionError, match=r"12 \(60%\).*Raise residue"):
        unlearn("rollback", {"to": "anchor", "residue": 0.1}, grid, models, cache, kept=(12,))
    with pytest.raises(ContributionError, match=r"rollback cannot begin.*contributions\.anchors"):
        unlearn("rollback", {"to": "anchor"}, grid, models, cache)
    assert not grid.sent


def test_rapid_retraining_takes_fisher_steps(tmp_path: Path) -> None:
    """One round of one step: −η Σ pᵢ gᵢ/(gᵢ² + ε) within ±η from the initial model: m̂ = g, v̂ = g⁴."""
    grid, models, _ = trained(tmp_path, rounds=1)
    leaving = Departure(frozenset({LEAVER}), 1, 1, 0.1, lambda: START)
    strategy = build_method("rapid-retrain", {}, leaving)
    (outcome,) = strategy.rounds(grid, strategy.begin(grid, models[1]), 1, first_round=2)
    step = {i: RATE * np.clip(CENTRES[i] / (CENTRES[i] ** 2 + 1e-8), -1, 1) for i in (1, 2, 3)}
    expected = 2 / 9 * step[1] + 3 / 9 * step[2] + 4 / 9 * step[3]
    np.testing.assert_allclose(theta(outcome.arrays), expected, rtol=1e-5)
    assert strategy.restarts
