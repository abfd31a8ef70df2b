"""Patients leave a site that stays: its two parts take turns, and its contribution is not theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reconsent.config import ContributionConfig
from reconsent.errors import ConfigError, ContributionError
from strategies import messages as msg
from strategies.methods import METHODS, build_method, check_method, method_settings
from tests.quadratic_unlearning import (
    CENTRES,
    EVERYBODY,
    LEAVER,
    RATE,
    ROUNDS,
    departure,
    theta,
    trained,
    unlearn,
)

STAYS = {"cooperating": frozenset({LEAVER}), "staying": frozenset({LEAVER})}


def test_the_two_parts_take_turns(tmp_path: Path) -> None:
    """θ ← θ + w Δᵤ on the leaving patients, then θ ← θ + Σ pᵢ Δᵢ of everybody, who come last."""
    grid, models, cache = trained(tmp_path)
    settings: dict[str, object] = {"forget-weight": 0.5, "gamma": 0.0}
    _, outcomes, after = unlearn("ga-l1-ft", settings, grid, models, cache, budget=4, **STAYS)
    w = theta(models[ROUNDS])
    for _ in range(2):
        w = w + 0.5 * RATE * (w - CENTRES[4])
        w = w + RATE * (EVERYBODY - w)
    np.testing.assert_allclose(after, w, atol=1e-5)
    asked: dict[object, dict[int, bool]] = {}
    for message in grid.sent:
        told = msg.config_of(message)
        if message.metadata.message_type != msg.TRAIN:
            continue
        node = message.metadata.dst_node_id
        asked.setdefault(told[msg.SERVER_ROUND], {})[node] = bool(told.get(msg.FORGET_SET))
    assert list(asked.values())[-4:] == [{4: True}, dict.fromkeys((1, 2, 3, 4), False)] * 2
    assert [LEAVER in outcome.weights for outcome in outcomes] == [False, True] * 2


def test_two_turns_need_two_rounds(tmp_path: Path) -> None:
    """With a budget of one round there are two all the same: one to forget, one to repair."""
    grid, models, cache = trained(tmp_path)
    strategy, outcomes, _ = unlearn("nl-ft", {}, grid, models, cache, budget=1, **STAYS)
    assert strategy.num_rounds == 2
    assert not outcomes[0].weights
    assert LEAVER in outcomes[1].weights


def test_a_site_that_withdraws_meanwhile_is_not_asked(tmp_path: Path) -> None:
    """That it stays lets nobody ask it once the whole site is barred, as it does for one that leaves."""
    _, models, _ = trained(tmp_path)
    barred = {"barred_now": lambda: {LEAVER}}
    settings: dict[str, object] = {"gamma": 0.0}
    stays = build_method("ga-l1-ft", settings, departure(models, budget=2, **STAYS), **barred)
    goes = departure(models, budget=2, cooperating=frozenset({LEAVER}))
    assert LEAVER in stays.barred_now()
    assert LEAVER not in build_method("ga-l1-ft", settings, goes, **barred).barred_now()


@pytest.mark.parametrize("name", list(METHODS))
def test_who_uses_a_sites_contribution_is_refused(name: str, tmp_path: Path) -> None:
    """Every method that reads what the whole site gave is refused, in the plan and at its start; no other."""
    kept = ContributionConfig(history_every=1, anchors=(0.5,))
    needs = METHODS[name].needs(method_settings(name, {}))
    grid, models, cache = trained(tmp_path)
    if not needs.of_whole_sites:
        check_method(name, {}, kept, cooperating=True, patients=True)
        unlearn(name, {}, grid, models, cache, budget=2, **STAYS)
        return
    with pytest.raises(ConfigError, match="as a whole"):
        check_method(name, {}, kept, cooperating=True, patients=True)
    check_method(name, {}, kept, cooperating=True)
    sent = len(grid.sent)
    with pytest.raises(ContributionError, match="as a whole"):
        unlearn(name, {}, grid, models, cache, budget=2, **STAYS)
    assert len(grid.sent) == sent
