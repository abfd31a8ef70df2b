"""The leaving site's own part: ascent, noisy labels, projected ascent, by hand on quadratic losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reconsent.errors import ContributionError, RoundError
from strategies.local_grid import LocalGrid
from tests.linear_app import quadratic_app
from tests.quadratic_unlearning import (
    CENTRES,
    EVERYBODY,
    LEAVER,
    NODES,
    RATE,
    REMAINING,
    ROUNDS,
    path,
    theta,
    trained,
    unlearn,
)

COOPERATING = frozenset({LEAVER})
GAMMA = 0.01
SETTINGS: dict[str, dict[str, object]] = {
    "ga-l1": {"gamma": GAMMA},
    "ga-l1-ft": {"gamma": GAMMA},
    "nl": {"noise": 0.5},
    "nl-ft": {"noise": 0.5},
}


def leaving_part(name: str, w: np.ndarray) -> np.ndarray:
    """Δᵤ of one step: η (θ − cᵤ − γ sign θ) for the ascent, η (cᵤ + λ − θ) for shifted labels."""
    if name.startswith("ga"):
        return RATE * (w - CENTRES[4] - GAMMA * np.sign(w))
    return RATE * (CENTRES[4] + 0.5 - w)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_each_round_adds_what_the_paper_adds(name: str, tmp_path: Path) -> None:
    """Two rounds of θ ← θ + Δᵤ, and + Σ p/(1 − pᵤ) Δᵢ with fine-tuning, as in the paper's losses."""
    grid, models, cache = trained(tmp_path)
    _, outcomes, after = unlearn(name, SETTINGS[name], grid, models, cache, cooperating=COOPERATING)
    w = theta(models[ROUNDS])
    for _ in range(2):
        others = RATE * (REMAINING - w) if name.endswith("-ft") else 0.0
        w = w + others + leaving_part(name, w)
    np.testing.assert_allclose(after, w, atol=1e-5)
    assert {m.metadata.dst_node_id for m in grid.sent} == ({1, 2, 3, 4} if name.endswith("-ft") else {4})
    assert all(LEAVER not in outcome.weights for outcome in outcomes)
    assert "forget-norm" in outcomes[0].notes


def test_the_weight_of_the_leaving_part_is_that_of_the_settings(tmp_path: Path) -> None:
    """forget-weight scales the leaving site's update and nothing else."""
    grid, models, cache = trained(tmp_path)
    settings = {"forget-weight": 0.25, "gamma": 0.0}
    _, _, after = unlearn("ga-l1-ft", settings, grid, models, cache, budget=1, cooperating=COOPERATING)
    w = theta(models[ROUNDS])
    expected = w + RATE * (REMAINING - w) + 0.25 * RATE * (w - CENTRES[4])
    np.testing.assert_allclose(after, expected, atol=1e-5)


def test_projected_ascent_climbs_within_its_ball_and_is_repaired(tmp_path: Path) -> None:
    """From the others' last mean model one step up the site's loss, cut at δ, then a retain-only round."""
    grid, models, cache = trained(tmp_path)
    reference = _reference()
    step = RATE * (reference - CENTRES[4])
    radius = 0.5 * np.linalg.norm(step)
    settings = {"radius": radius / np.linalg.norm(reference)}
    strategy, outcomes, after = unlearn("pga", settings, grid, models, cache, cooperating=COOPERATING)
    top = reference + 0.5 * step
    np.testing.assert_allclose(theta(outcomes[0].arrays), top, atol=1e-5)
    np.testing.assert_allclose(after, path(1, REMAINING, top), atol=1e-5)
    assert [sorted(o.weights) for o in outcomes] == [[], ["node-1", "node-2", "node-3"]]
    assert strategy.num_rounds == 2
    assert outcomes[0].notes["radius"] == pytest.approx(radius, rel=1e-5)


def _reference() -> np.ndarray:
    before = path(ROUNDS - 1, EVERYBODY)
    return before + RATE * (REMAINING - before)


def test_a_ball_that_is_large_enough_does_nothing(tmp_path: Path) -> None:
    """With a wide ball around the model itself the ascent is the plain step; no history is needed."""
    grid, models, _ = trained(tmp_path, history_every=0)
    settings = {"radius": 1e3, "centre": "model"}
    _, outcomes, _ = unlearn("pga", settings, grid, models, None, cooperating=COOPERATING)
    w = theta(models[ROUNDS])
    np.testing.assert_allclose(theta(outcomes[0].arrays), w + RATE * (w - CENTRES[4]), atol=1e-5)


@pytest.mark.parametrize("name", ["pga", *SETTINGS])
def test_a_site_that_left_gone_is_not_asked(name: str, tmp_path: Path) -> None:
    """Without a cooperating site the method does not begin, and says how to file such a withdrawal."""
    grid, models, cache = trained(tmp_path)
    with pytest.raises(ContributionError, match=r"left gone.*--cooperating"):
        unlearn(name, {}, grid, models, cache)
    assert not grid.sent


def test_a_leaving_site_that_does_not_answer_fails_the_round(tmp_path: Path) -> None:
    """A round without the leaving site's part is an error that names it, not a round of the others."""
    _, models, cache = trained(tmp_path)
    grid = LocalGrid(quadratic_app(CENTRES, rate=RATE, reach={4: 0.0}), NODES)
    with pytest.raises(RoundError, match="node-4"):
        unlearn("ga-l1-ft", {}, grid, models, cache, cooperating=COOPERATING)


def test_the_leaving_part_is_no_contribution(tmp_path: Path) -> None:
    """What the leaving site computes is not folded into the cache, and others' shares are as without it."""
    grid, models, cache = trained(tmp_path)
    before = cache.shares(LEAVER)
    strategy, outcomes, _ = unlearn("ga-l1-ft", {}, grid, models, cache, cooperating=COOPERATING, budget=1)
    strategy.commit(outcomes[-1].round)
    assert cache.shares(LEAVER) == before
    assert cache.shares("node-3")[ROUNDS + 1] == pytest.approx(4 / 9)
