"""Cached ascent on quadratic losses, where the retrained model is known in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord

from reconsent.errors import ConfigError, ContributionError
from strategies import ContributionAveraging, Departure, RoundOutcome, UnlearningStrategy, build_method
from strategies import messages as msg
from strategies.cached_ascent_settings import CachedAscentSettings
from strategies.local_grid import LocalGrid
from strategies.methods import method_settings
from tests.linear_app import model, quadratic_app
from unlearning.contributions import CachePolicy, ContributionCache
from unlearning.parameters import norm

RNG = np.random.default_rng(1)
CENTRES = {i: RNG.standard_normal(30) * 3 for i in (1, 2, 3, 4)}
EXAMPLES = {1: 2, 2: 3, 3: 4, 4: 1}
NODES = {i: {"examples": n} for i, n in EXAMPLES.items()}
LEAVER = "node-4"
SHARE = 0.1
RATE = 0.05
START = model(np.zeros(30))


def theta(record: ArrayRecord) -> np.ndarray:
    return msg.named_arrays(record)["theta"]


def trained(
    directory: Path, *, rounds: int = 20, **policy: Any
) -> tuple[LocalGrid, ArrayRecord, ContributionCache]:
    grid = LocalGrid(quadratic_app(CENTRES, rate=RATE), NODES)
    cache = ContributionCache.open(directory, CachePolicy(**policy))
    arrays = ContributionAveraging(cache=cache).start(grid, START, num_rounds=rounds).arrays
    return grid, arrays, cache


def departure(rounds: int = 20, budget: int = 2) -> Departure:
    return Departure(frozenset({LEAVER}), rounds, budget, 0.1, lambda: START)


def retrained(grid: LocalGrid, rounds: int) -> np.ndarray:
    strategy = build_method("retrain", {}, departure(rounds))
    return theta(strategy.start(grid, START, num_rounds=strategy.num_rounds).arrays)


def run(
    name: str,
    settings: dict[str, object],
    grid: LocalGrid,
    arrays: ArrayRecord,
    cache: ContributionCache | None,
    budget: int = 2,
) -> tuple[UnlearningStrategy, list[RoundOutcome]]:
    strategy = build_method(name, settings, departure(budget=budget), cache=cache)
    current = strategy.begin(grid, arrays)
    outcomes = list(strategy.rounds(grid, current, strategy.num_rounds, first_round=21))
    return strategy, outcomes


def test_damped_specific_contribution_is_the_exact_way_to_the_oracle(tmp_path: Path) -> None:
    """With damping equal to the retained curvature, w_T − U_u is the retrained model to 1e-6 of its size."""
    damping = RATE / (1 - SHARE)  # a (1 − p) = η h: the pull of the remaining sites' quadratic losses
    grid, arrays, cache = trained(tmp_path, damping=damping)
    oracle = retrained(grid, 20)
    unlearned = theta(arrays) - cache.running(LEAVER, "specific")
    assert np.abs(theta(arrays) - oracle).max() > 0.1
    assert np.abs(unlearned - oracle).max() < 1e-6 * np.abs(oracle).max()


def test_undamped_contributions_overshoot_as_computed(tmp_path: Path) -> None:
    """Without damping U_u = T η (c̄ − ĉ), but G − Ĝ = (1 − (1 − η)ᵀ)(c̄ − ĉ): 56 % too far after 20 rounds."""
    grid, arrays, cache = trained(tmp_path)
    away = theta(arrays) - retrained(grid, 20)
    overshoot = 20 * RATE / (1 - (1 - RATE) ** 20)
    assert overshoot == pytest.approx(1.5588, abs=1e-4)
    np.testing.assert_allclose(cache.running(LEAVER, "specific"), overshoot * away, atol=2e-6)


def test_raw_sums_are_those_of_the_path_and_miss_the_oracle(tmp_path: Path) -> None:
    """Σ p Δ_u is p η (T c_u − Σ θᵗ) with θᵗ = (1 − (1 − η)ᵗ) c̄, and leaves 63 % of the way to the oracle."""
    grid, arrays, cache = trained(tmp_path)
    mean = sum(EXAMPLES[i] / 10 * CENTRES[i] for i in CENTRES)
    path = sum((1 - (1 - RATE) ** t) * mean for t in range(20))
    raw = cache.running(LEAVER, "sum")
    np.testing.assert_allclose(raw, SHARE * RATE * (20 * CENTRES[4] - path), atol=2e-6)
    away = theta(arrays) - retrained(grid, 20)
    assert norm(away - raw) / norm(away) == pytest.approx(0.6274, abs=1e-3)


def test_strategy_takes_the_step_its_settings_ask_for(tmp_path: Path) -> None:
    """One step of α R along the specific contribution, then retain-only rounds, ends at the oracle."""
    grid, arrays, cache = trained(tmp_path, damping=RATE / (1 - SHARE))
    size = float(np.median(cache.norms(LEAVER)[-10:]))
    alpha = norm(cache.running(LEAVER, "specific")) / size
    settings = {"alpha": alpha, "ascent-rounds": 1, "trust-radius": 1e6}
    _, outcomes = run("cached-ascent", settings, grid, arrays, cache)
    np.testing.assert_allclose(theta(outcomes[-1].arrays), retrained(grid, 22), atol=1e-5)
    assert outcomes[0].notes["step-norm"] == pytest.approx(alpha * size)
    assert "step-norm" not in outcomes[1].notes


def test_small_steps_move_towards_the_oracle_and_the_wrong_sign_away(tmp_path: Path) -> None:
    """Half a step along the contribution helps; random and opposite steps of its length do not."""
    grid, arrays, cache = trained(tmp_path)
    oracle, original = retrained(grid, 20), theta(arrays)
    direction = cache.running(LEAVER, "specific")
    length = 0.5 * norm(original - oracle)
    away = norm(original - oracle)
    unit = direction / norm(direction)
    random = np.random.default_rng(0).standard_normal(30)
    assert norm(original - length * unit - oracle) < 0.8 * away
    assert norm(original + length * unit - oracle) > away
    assert norm(original - length * random / norm(random) - oracle) > 0.95 * away


def test_the_leaver_is_never_asked(tmp_path: Path) -> None:
    """Neither rounds nor the watching of losses send anything to the withdrawn site."""
    grid, arrays, cache = trained(tmp_path, history_every=1)
    grid.sent.clear()
    run("cached-ascent", {"alpha": 0.5}, grid, arrays, cache)
    assert {message.metadata.dst_node_id for message in grid.sent} == {1, 2, 3}
    assert {message.metadata.message_type for message in grid.sent} == {"train", "evaluate"}


def test_a_step_that_costs_too_much_is_taken_back_and_halved(tmp_path: Path) -> None:
    """With an absurd α the model stays G, round by round at half the length, until a step is affordable."""
    grid, arrays, cache = trained(tmp_path)
    settings = {"alpha": 400.0, "ascent-rounds": 1, "trust-radius": 1e6, "tolerance": 0.5}
    _, outcomes = run("cached-ascent", settings, grid, arrays, cache, budget=12)
    refused = [o for o in outcomes if not o.accepted]
    assert refused
    assert all(o.weights == {} and theta(o.arrays).tobytes() == theta(arrays).tobytes() for o in refused)
    steps = [o.notes["step-norm"] for o in outcomes if "step-norm" in o.notes]
    np.testing.assert_allclose(np.array(steps[1:]) / np.array(steps[:-1]), 0.5)
    taken = next(o for o in outcomes if o.accepted)
    assert taken.notes["retain-loss-after"] <= 1.5 * taken.notes["retain-loss-before"]


def refused_steps(outcomes: list[RoundOutcome], start: ArrayRecord) -> int:
    """How many rounds were taken back; each must leave the model as it was, and honestly say so."""
    refused = [outcome for outcome in outcomes if not outcome.accepted]
    assert all(theta(outcome.arrays).tobytes() == theta(start).tobytes() for outcome in refused)
    assert all(outcome.weights == {} for outcome in refused)
    assert all("retain-loss-after" not in outcome.notes for outcome in refused)
    return len(refused)


def test_a_site_that_a_step_ruined_counts(tmp_path: Path) -> None:
    """A site that can no longer say its loss after a step does not drop out of the mean: the step goes."""
    _, arrays, cache = trained(tmp_path)
    reach = {2: 1.05 * norm(theta(arrays) - CENTRES[2])}
    grid = LocalGrid(quadratic_app(CENTRES, rate=RATE, reach=reach), NODES)
    settings = {"alpha": 40.0, "ascent-rounds": 1, "trust-radius": 1e6, "tolerance": 1e6}
    _, outcomes = run("cached-ascent", settings, grid, arrays, cache, budget=9)
    assert refused_steps(outcomes, arrays) > 0
    (taken,) = [o for o in outcomes if o.accepted and "step-norm" in o.notes]
    assert "node-2" in taken.weights


def test_a_step_after_which_nobody_can_train_is_taken_back(tmp_path: Path) -> None:
    """If every site diverges in a step's round, the step is halved; it is not the end of the unlearning."""
    _, arrays, cache = trained(tmp_path)
    reach = {i: 1.05 * norm(theta(arrays) - CENTRES[i]) for i in (1, 2, 3)}
    grid = LocalGrid(quadratic_app(CENTRES, rate=RATE, reach=reach), NODES)
    settings = {"alpha": 100.0, "ascent-rounds": 1, "trust-radius": 1e6, "tolerance": 1e6}
    strategy, outcomes = run("cached-ascent", settings, grid, arrays, cache, budget=12)
    assert refused_steps(outcomes, arrays) > 0
    assert {site.outcome for site in outcomes[0].sites} == {"app_error"}
    assert any(o.accepted and "step-norm" in o.notes for o in outcomes)
    assert strategy.finish(outcomes[-1].arrays) is outcomes[-1].arrays


def test_nothing_unlearned_is_an_error(tmp_path: Path) -> None:
    """If every step was taken back the model is still G, and is not passed off as unlearned."""
    grid, arrays, cache = trained(tmp_path)
    settings = {"alpha": 1e6, "ascent-rounds": 1, "trust-radius": 1e9, "tolerance": 0.0}
    strategy, outcomes = run("cached-ascent", settings, grid, arrays, cache, budget=2)
    assert not any(outcome.accepted for outcome in outcomes)
    with pytest.raises(ContributionError, match=r"nothing was unlearned\. Lower alpha"):
        strategy.finish(outcomes[-1].arrays)


def test_an_empty_string_means_none(tmp_path: Path) -> None:
    """Optional settings are left out by an empty string, which is all that command lines can say."""
    settings = method_settings("cached-ascent", {"tolerance": "", "final-rate": ""})
    assert isinstance(settings, CachedAscentSettings)
    assert settings.tolerance is None
    assert settings.final_rate is None
    with pytest.raises(ConfigError, match="rate"):
        method_settings("cached-ascent", {"rate": ""})


def test_settings_that_can_never_work_are_refused_at_once() -> None:
    """Recency with the specific contribution is refused before anything is trained."""
    with pytest.raises(ConfigError, match=r"recency below 1 .* direction = 'sum'"):
        method_settings("cached-ascent", {"recency": 0.9})


def test_bystanders_have_no_say_in_the_direction(tmp_path: Path) -> None:
    """Leaving together with one that took part in no round, a site is unlearned as if it left alone."""
    grid, arrays, cache = trained(tmp_path)
    both = frozenset({LEAVER, "stranger"})
    leaving = Departure(both, 20, 2, 0.1, lambda: START, frozenset({"stranger"}))
    joint = build_method("cached-ascent", {}, leaving, cache=cache)
    alone = build_method("cached-ascent", {}, departure(), cache=cache)
    joint.begin(grid, arrays)
    alone.begin(grid, arrays)
    np.testing.assert_array_equal(joint._direction, alone._direction)


def test_trust_radius_bounds_all_steps_together(tmp_path: Path) -> None:
    """Interleaved steps stop when their lengths add up to trust-radius · R."""
    grid, arrays, cache = trained(tmp_path)
    settings = {"alpha": 5.0, "ascent-rounds": 5, "trust-radius": 2.5, "tolerance": 9.0}
    _, outcomes = run("cached-ascent", settings, grid, arrays, cache, budget=5)
    size = float(np.median(cache.norms(LEAVER)[-10:]))
    steps = [o.notes.get("step-norm", 0.0) / size for o in outcomes]
    np.testing.assert_allclose(steps, [1.0, 1.0, 0.5, 0.0, 0.0], atol=1e-9)


def test_span_guard_keeps_retain_updates_off_the_cached_directions(tmp_path: Path) -> None:
    """With the guard nothing moves along any cached update of the withdrawn site; without it, much does."""
    grid, arrays, cache = trained(tmp_path, rounds=5, history_every=1, history_dtype="float32")
    moved = {}
    for guard in ("span", "none"):
        _, outcomes = run("cached-ascent", {"alpha": 0.0, "guard": guard}, grid, arrays, cache)
        moved[guard] = theta(outcomes[-1].arrays).astype(np.float64) - theta(arrays)
    for _, _, update in cache.updates(LEAVER):
        assert abs(moved["span"] @ update) < 1e-3 * abs(moved["none"] @ update)


def test_return_guard_never_goes_back_towards_the_original(tmp_path: Path) -> None:
    """With guard = return each retain update has no part that leads back to G."""
    grid, arrays, cache = trained(tmp_path)
    settings = {"alpha": 3.0, "ascent-rounds": 1, "guard": "return", "tolerance": 9.0, "trust-radius": 100.0}
    _, outcomes = run("cached-ascent", settings, grid, arrays, cache, budget=4)
    away = [norm(theta(o.arrays) - theta(arrays)) for o in outcomes]
    size = float(np.median(cache.norms(LEAVER)[-10:]))
    assert min(away) >= 3.0 * size * (1 - 1e-5)


def test_span_guard_without_history_says_how_to_get_it(tmp_path: Path) -> None:
    """A method that needs what was not kept says so before its first round."""
    grid, arrays, cache = trained(tmp_path, history_every=0)
    with pytest.raises(ContributionError, match="history-every"):
        run("cached-ascent", {"guard": "span"}, grid, arrays, cache)
    with pytest.raises(ContributionError, match="history-every"):
        run("cached-ascent", {"direction": "sum", "recency": 0.9}, grid, arrays, cache)
    with pytest.raises(ContributionError, match="retain-ft"):
        run("cached-ascent", {}, grid, arrays, None)


def test_a_site_that_never_took_part_cannot_be_unlearned(tmp_path: Path) -> None:
    """Forgetting somebody who contributed nothing is an error, not a silent success."""
    grid, arrays, cache = trained(tmp_path)
    strategy = build_method(
        "cached-ascent",
        {},
        Departure(frozenset({"stranger"}), 20, 2, 0.1, lambda: START),
        cache=cache,
    )
    with pytest.raises(ContributionError, match="stranger"):
        strategy.begin(grid, arrays)


def test_two_leavers_are_unlearned_together(tmp_path: Path) -> None:
    """The direction of two leavers is the sum of theirs, and neither is asked again."""
    grid, arrays, cache = trained(tmp_path)
    strategy = build_method(
        "cached-ascent",
        {"direction": "sum", "alpha": 1.0},
        Departure(frozenset({"node-3", "node-4"}), 20, 1, 0.1, lambda: START),
        cache=cache,
    )
    grid.sent.clear()
    start = strategy.begin(grid, arrays)
    list(strategy.rounds(grid, start, 1))
    both = cache.running("node-3", "sum") + cache.running("node-4", "sum")
    np.testing.assert_allclose(strategy._direction, both / norm(both), atol=1e-6)
    assert {message.metadata.dst_node_id for message in grid.sent} == {1, 2}


def test_orthogonalised_direction_is_off_the_others(tmp_path: Path) -> None:
    """With orthogonalise the direction has no part along any remaining site's contribution."""
    grid, arrays, cache = trained(tmp_path)
    strategy, _ = run("cached-ascent", {"direction": "sum", "orthogonalise": True}, grid, arrays, cache)
    for site in ("node-1", "node-2", "node-3"):
        other = cache.running(site, "sum")
        assert abs(float(strategy._direction @ other)) < 1e-5 * norm(other)


def test_learning_rate_falls_within_the_unlearning(tmp_path: Path) -> None:
    """Sites are told a rate that goes from the first to the last setting over the budget's rounds."""
    grid, arrays, cache = trained(tmp_path)
    settings = {"rate": 0.04, "final-rate": 0.01}
    strategy, _ = run("retain-ft", settings, grid, arrays, cache, budget=3)
    told = [strategy.round_config(t)[msg.LEARNING_RATE] for t in (21, 22, 23)]
    np.testing.assert_allclose(told, [4e-3, 2e-3, 1e-3])


def test_momentum_speeds_retain_only_training(tmp_path: Path) -> None:
    """With server momentum the same rounds come nearer to the remaining sites' optimum."""
    grid, arrays, cache = trained(tmp_path)
    optimum = sum(EXAMPLES[i] / 9 * CENTRES[i] for i in (1, 2, 3))
    far = {}
    for momentum in (0.0, 0.6):
        _, outcomes = run("retain-ft", {"momentum": momentum}, grid, arrays, cache, budget=8)
        far[momentum] = norm(theta(outcomes[-1].arrays) - optimum)
    assert far[0.6] < 0.8 * far[0.0]


def test_unknown_methods_and_settings_are_refused_with_the_nearest(tmp_path: Path) -> None:
    """Misspelt names are answered with the nearest valid one."""
    with pytest.raises(ConfigError, match="cached-ascent"):
        build_method("cached-asent", {}, departure())
    with pytest.raises(ConfigError, match="did you mean 'alpha'"):
        build_method("cached-ascent", {"alfa": 1.0}, departure())
    with pytest.raises(ConfigError, match="rate"):
        build_method("cached-ascent", {"alpha": -1.0}, departure())
