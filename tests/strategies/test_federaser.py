"""FedEraser on cases computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reconsent.errors import ContributionError
from tests.quadratic_unlearning import CENTRES, REMAINING, ROUNDS, path, trained, unlearn, update

SHARES = {1: 2 / 9, 2: 3 / 9, 3: 4 / 9}


def replay(rounds: list[int], lengths: dict[tuple[int, int], float] | None = None) -> np.ndarray:
    """The paper's recursion in closed form: stored updates first, then fresh directions of stored length."""
    w = sum(p * update(i, rounds[0]) for i, p in SHARES.items())
    for t in rounds[1:]:
        fresh = {i: CENTRES[i] - w for i in SHARES}
        length = {i: (lengths or {}).get((i, t), np.linalg.norm(update(i, t))) for i in SHARES}
        w = w + sum(p * length[i] * fresh[i] / np.linalg.norm(fresh[i]) for i, p in SHARES.items())
    return w


def test_two_rounds_are_those_of_the_paper(tmp_path: Path) -> None:
    """Replaying every second of six rounds gives the recursion's model: norms of Δ, not of the aggregate."""
    grid, models, cache = trained(tmp_path, rounds=6)
    strategy, outcomes, after = unlearn("federaser", {"interval": 2}, grid, models, cache)
    assert [o.notes["replayed-round"] for o in outcomes] == [3, 5]
    np.testing.assert_allclose(after, replay([1, 3, 5]), atol=2e-5)
    assert strategy.restarts
    assert {m.metadata.dst_node_id for m in grid.sent} == {1, 2, 3}


def test_the_interval_follows_from_the_budget(tmp_path: Path) -> None:
    """Without an interval as few rounds are skipped as the budget allows."""
    grid, models, cache = trained(tmp_path)
    _, outcomes, after = unlearn("federaser", {}, grid, models, cache, budget=4)
    assert len(outcomes) == 4
    np.testing.assert_allclose(after, replay([1, 5, 9, 13, 17]), atol=2e-5)


def test_a_round_can_stand_for_its_interval(tmp_path: Path) -> None:
    """With whole-interval a replayed length is the sum of those from its round to before the next."""
    grid, models, cache = trained(tmp_path, rounds=6)
    _, _, after = unlearn("federaser", {"interval": 3, "whole-interval": True}, grid, models, cache)
    sums = {(i, 4): sum(np.linalg.norm(update(i, t)) for t in (4, 5, 6)) for i in SHARES}
    np.testing.assert_allclose(after, replay([1, 4], sums), atol=2e-5)


def test_one_step_with_two_parameters_by_hand() -> None:
    """w̃ = (3, 0) from stored updates, then a length of 5 in the fresh direction (3, 4)/5 ends at (6, 4)."""
    from strategies.federaser import FedEraser, FedEraserSettings
    from strategies.screening import Screened
    from tests.quadratic_unlearning import START, departure

    strategy = FedEraser(departure({0: START}), FedEraserSettings())
    strategy.resume(
        {
            "_replayed": [1.0, 2.0],
            "_sites": ["node-1"],
            "_lengths": [9.0, 5.0],
            "_first": np.array([3.0, 0.0], dtype=np.float32),
        }
    )
    moved, _ = strategy.prepare(1, np.zeros(2, dtype=np.float32))
    fresh = Screened(np.array([0.3, 0.4], dtype=np.float32), 7, 0.5)
    kept = strategy.accept(1, "node-1", fresh)
    assert kept is not None
    np.testing.assert_allclose(moved + kept.update, [6.0, 4.0], atol=1e-6)
    assert (kept.examples, kept.norm) == (7, 5.0)


def test_it_goes_on_from_its_state_without_the_cache(tmp_path: Path) -> None:
    """What it planned is in its state: another instance with an empty cache replays the same rounds."""
    from strategies import build_method
    from tests.quadratic_unlearning import START, departure, theta

    grid, models, cache = trained(tmp_path / "a", rounds=6)
    whole, outcomes, after = unlearn("federaser", {"interval": 2}, grid, models, cache)
    again = build_method("federaser", {"interval": 2}, departure(models))
    again.resume(whole.state())
    redone = list(again.rounds(grid, START, again.num_rounds, first_round=7))
    np.testing.assert_array_equal(theta(redone[-1].arrays), after)
    assert len(redone) == len(outcomes)


def test_without_history_it_says_how_to_get_one(tmp_path: Path) -> None:
    """Without the stored updates of any round it does not begin, and names the setting."""
    grid, models, cache = trained(tmp_path, history_every=0)
    with pytest.raises(ContributionError, match=r"federaser cannot begin.*history-every"):
        unlearn("federaser", {}, grid, models, cache)
    assert not grid.sent


def test_lengths_are_not_those_of_an_undertrained_path(tmp_path: Path) -> None:
    """With interval 1 it ends at most a tenth farther from the optimum than retraining; with 5, farther."""
    grid, models, cache = trained(tmp_path)
    _, _, after = unlearn("federaser", {"interval": 1}, grid, models, cache)
    np.testing.assert_allclose(after, replay(list(range(1, ROUNDS + 1))), atol=1e-4)
    retrained = np.linalg.norm(path(ROUNDS, REMAINING) - REMAINING)
    assert np.linalg.norm(after - REMAINING) <= 1.1 * retrained
    assert np.linalg.norm(replay([1, 6, 11, 16]) - REMAINING) > 1.1 * retrained
