"""Cached ascent as a model of the oracle: damped, rolled back, projected; on quadratic losses, exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reconsent.errors import ConfigError, ContributionError
from strategies import Departure, build_method
from strategies.methods import method_settings
from tests.quadratic_unlearning import (
    CENTRES,
    EVERYBODY,
    LEAVER,
    RATE,
    REMAINING,
    ROUNDS,
    SHARE,
    departure,
    path,
    theta,
    trained,
    unlearn,
    update,
)
from unlearning.contribution_files import ContributionFiles

DAMPING = RATE / (1 - SHARE)
"""a (1 − p) = η h: the pull of the remaining sites' losses."""
WHOLE = {"unit": "contribution", "alpha": 1.0, "ascent-rounds": 1, "trust-radius": 1e6, "tolerance": ""}


def specific(last: int) -> np.ndarray:
    """U at a round, undamped: every round adds p η (cᵤ − c̄ of the others), whatever the model is."""
    return SHARE * RATE * last * (CENTRES[4] - REMAINING)


def test_the_damped_recursion_reproduces_retraining_to_a_millionth(tmp_path: Path) -> None:
    """θ_T − U with a (1 − p) = η h, computed from the history, and one round more is retraining to 1e-6."""
    grid, models, cache = trained(tmp_path)
    _, outcomes, after = unlearn(
        "cached-ascent", {**WHOLE, "damping": DAMPING}, grid, models, cache, budget=1
    )
    oracle = path(ROUNDS + 1, REMAINING)
    assert np.abs(theta(models[ROUNDS]) - path(ROUNDS, REMAINING)).max() > 0.1
    assert np.abs(after - oracle).max() < 1e-6 * np.abs(oracle).max()
    assert outcomes[0].notes["alpha"] == 1.0


def test_the_wrong_damping_does_not(tmp_path: Path) -> None:
    """Without damping, or with twice as much, the same step misses the oracle by more than a hundredth."""
    grid, models, cache = trained(tmp_path)
    oracle = path(ROUNDS + 1, REMAINING)
    for damping in (0.0, 2 * DAMPING):
        _, _, after = unlearn("cached-ascent", {**WHOLE, "damping": damping}, grid, models, cache, budget=1)
        assert np.abs(after - oracle).max() > 1e-2 * np.abs(oracle).max()


def test_two_leavers_together_are_exact(tmp_path: Path) -> None:
    """From the history sites 3 and 4 lead to the model without both if damped, and not if undamped."""
    grid, models, cache = trained(tmp_path)
    optimum = (2 * CENTRES[1] + 3 * CENTRES[2]) / 5
    left = frozenset({"node-3", LEAVER})
    leaving = Departure(left, ROUNDS, 1, 0.1, lambda: models[0], models=departure(models).models)
    far = {}
    for damping in (RATE / 0.5, None):
        strategy = build_method("cached-ascent", {**WHOLE, "damping": damping or ""}, leaving, cache=cache)
        arrays = strategy.begin(grid, models[ROUNDS])
        (outcome,) = strategy.rounds(grid, arrays, 1, first_round=ROUNDS + 1)
        far[damping] = np.abs(theta(outcome.arrays) - path(ROUNDS + 1, optimum)).max()
    assert far[RATE / 0.5] < 1e-5
    assert far[None] > 0.1


def test_the_direction_of_two_leavers_is_that_of_the_model_without_both(tmp_path: Path) -> None:
    """From running vectors of shares 0.4 and 0.1: T η (c̄ of all − c̄ of the others), by hand."""
    grid, models, cache = trained(tmp_path)
    left = frozenset({"node-3", LEAVER})
    leaving = Departure(left, ROUNDS, 1, 0.1, lambda: models[0], models=departure(models).models)
    strategy = build_method("cached-ascent", {"unit": "contribution"}, leaving, cache=cache)
    strategy.begin(grid, models[ROUNDS])
    whole = ROUNDS * RATE * (EVERYBODY - (2 * CENTRES[1] + 3 * CENTRES[2]) / 5)
    np.testing.assert_allclose(strategy._direction, whole / np.linalg.norm(whole), atol=1e-6)
    assert strategy._size == pytest.approx(np.linalg.norm(whole), rel=1e-5)


def test_the_geometric_unit_lies_between_an_update_and_the_contribution(tmp_path: Path) -> None:
    """√(R ‖U‖), both by hand; each step is that long times its part of alpha."""
    grid, models, cache = trained(tmp_path)
    size = float(np.median([np.linalg.norm(update(4, t)) for t in range(ROUNDS - 9, ROUNDS + 1)]))
    whole = np.linalg.norm(SHARE / (1 - SHARE) * ROUNDS * RATE * (CENTRES[4] - EVERYBODY))
    strategy, outcomes, _ = unlearn(
        "cached-ascent", {"unit": "geometric", "alpha": 0.5, "tolerance": ""}, grid, models, cache, budget=4
    )
    assert strategy._size == pytest.approx(np.sqrt(size * whole), rel=1e-5)
    lengths = [o.notes["step-norm"] for o in outcomes if "step-norm" in o.notes]
    assert lengths == pytest.approx([0.25 * np.sqrt(size * whole)] * 2, rel=1e-5)


def test_the_span_reads_each_update_it_chooses_once_and_none_after_the_anchor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of twenty updates are loaded for a span of four; gone back to round 8, four of the first eight."""
    grid, models, cache = trained(tmp_path, anchor_rounds=frozenset({8}))
    read: list[str] = []
    really = ContributionFiles.read
    monkeypatch.setattr(
        ContributionFiles, "read", lambda self, file: (read.append(file.path), really(self, file))[1]
    )
    chosen = {}
    for rollback in ("", 0.4):
        read.clear()
        settings = {"guard": "span", "guard-size": 4, "rollback": rollback, "tolerance": ""}
        method = build_method("cached-ascent", settings, departure(models, kept=(8,)), cache=cache)
        method.begin(grid, models[ROUNDS])
        chosen[rollback] = [path for path in read if "update-" in path]
    name = f"{LEAVER}/update-{{:06d}}.safetensors"
    assert chosen == {
        "": [name.format(t) for t in (1, 6, 11, 16)],
        0.4: [name.format(t) for t in (1, 3, 5, 7)],
    }


def test_a_step_that_the_trust_region_cuts_is_noted_as_it_was_taken(tmp_path: Path) -> None:
    """Of two steps of 1 R each the second is cut to 0.5 R, and so is the α that is noted."""
    grid, models, cache = trained(tmp_path)
    settings = {"alpha": 2.0, "ascent-rounds": 2, "trust-radius": 1.5, "tolerance": ""}
    strategy, outcomes, _ = unlearn("cached-ascent", settings, grid, models, cache)
    assert [outcome.notes["alpha"] for outcome in outcomes] == [1.0, 0.5]
    for outcome in outcomes:
        assert outcome.notes["step-norm"] == outcome.notes["alpha"] * strategy._size


def test_rolled_back_it_ascends_on_what_had_been_contributed_by_then(tmp_path: Path) -> None:
    """From the anchor at 8 of 20 rounds: undamped, θ⁸ − U⁸ with U⁸ the running sum kept there."""
    grid, models, cache = trained(tmp_path, anchor_rounds=frozenset({8, 16}))
    strategy, _, after = unlearn(
        "cached-ascent", {**WHOLE, "rollback": 0.45}, grid, models, cache, kept=(8, 16)
    )
    assert strategy.start_round == 8
    expected = path(2, REMAINING, theta(models[8]) - specific(8))
    np.testing.assert_allclose(after, expected, atol=1e-5)


def test_rolled_back_and_damped_it_is_the_oracle_of_that_round(tmp_path: Path) -> None:
    """With the right damping the model at the anchor becomes the oracle there, and two rounds keep it so."""
    grid, models, cache = trained(tmp_path, anchor_rounds=frozenset({8}))
    settings = {**WHOLE, "rollback": 0.4, "damping": DAMPING}
    _, _, after = unlearn("cached-ascent", settings, grid, models, cache, kept=(8,))
    np.testing.assert_allclose(after, path(10, REMAINING), atol=1e-5)


def test_without_an_anchor_it_says_which_models_there_are(tmp_path: Path) -> None:
    """No model far enough back, or none at all: both name what to do."""
    grid, models, cache = trained(tmp_path, anchor_rounds=frozenset({16}))
    with pytest.raises(ContributionError, match=r"rounds 16, 20.*Raise rollback"):
        unlearn("cached-ascent", {"rollback": 0.2}, grid, models, cache, kept=(16,))
    with pytest.raises(ContributionError, match=r"cannot begin.*contributions\.anchors"):
        unlearn("cached-ascent", {"rollback": 0.2}, grid, models, cache)
    assert not grid.sent


def test_a_rollback_goes_on_from_its_state(tmp_path: Path) -> None:
    """Killed after its first round, another instance that never saw the cache ends with the same model."""
    grid, models, cache = trained(tmp_path, anchor_rounds=frozenset({8}))
    settings: dict[str, object] = {"rollback": 0.4, "guard": "return", "tolerance": "", "momentum": 0.5}
    leaving = departure(models, budget=4, kept=(8,))
    whole = build_method("cached-ascent", settings, leaving, cache=cache)
    arrays = whole.begin(grid, models[ROUNDS])
    assert whole.planned
    rounds = whole.rounds(grid, arrays, 4, first_round=21)
    first = next(rounds)
    state = whole.state()
    *_, last = rounds
    again = build_method("cached-ascent", settings, leaving)
    again.resume(state)
    *_, redone = again.rounds(grid, first.arrays, 4, first_round=21, done=1)
    np.testing.assert_array_equal(theta(redone.arrays), theta(last.arrays))


def test_a_step_projected_off_fresh_updates_leaves_them_alone(tmp_path: Path) -> None:
    """θ' = θ + Δ̄ − s (I − QᵀQ) d with Q the span of the round's own updates: nothing is lost along them."""
    grid, models, cache = trained(tmp_path)
    settings = {"project-fresh": True, "alpha": 1.0, "ascent-rounds": 1, "tolerance": ""}
    _, _, after = unlearn("cached-ascent", settings, grid, models, cache, budget=1)
    w = theta(models[ROUNDS])
    fresh = np.stack([RATE * (CENTRES[i] - w) for i in (1, 2, 3)])
    direction = (CENTRES[4] - REMAINING) / np.linalg.norm(CENTRES[4] - REMAINING)
    kept = direction - np.linalg.pinv(fresh) @ (fresh @ direction)
    size = np.median([np.linalg.norm(update(4, t)) for t in range(11, 21)])
    np.testing.assert_allclose(after, w + RATE * (REMAINING - w) - size * kept, atol=1e-5)
    assert np.linalg.norm(kept) < 0.999


def test_settings_that_contradict_each_other_are_refused() -> None:
    """Damping belongs to the specific contribution."""
    with pytest.raises(ConfigError, match="direction = 'specific'"):
        method_settings("cached-ascent", {"damping": 0.1, "direction": "sum"})
