"""Federated averaging that screens, caches and streams, on models that have nothing to do with MRI."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from reconsent.errors import GuardError, RoundError
from strategies import ContributionAveraging, UpdateScreen
from strategies import messages as msg
from strategies.exchange import exchange
from strategies.local_grid import LocalGrid
from strategies.outcomes import RoundOutcome, weighted_metrics
from tests.linear_app import model, quadratic_app
from unlearning.contributions import CachePolicy, ContributionCache

CENTRES = {1: np.array([1.0, 0.0, 2.0]), 2: np.array([-1.0, 3.0, 0.0]), 3: np.array([0.5, 0.5, 0.5])}
NODES = {1: {"examples": 1}, 2: {"examples": 2}, 3: {"examples": 5}}


def theta(record: msg.ArrayRecord) -> np.ndarray:
    return msg.named_arrays(record)["theta"]


def test_average_is_weighted_by_examples() -> None:
    """One round moves the model by Σ pᵢ Δᵢ with pᵢ the share of the examples, exactly as by hand."""
    grid = LocalGrid(quadratic_app(CENTRES, rate=0.1), NODES)
    result = ContributionAveraging().start(grid, model(np.zeros(3)), num_rounds=1)
    expected = sum(n / 8 * 0.1 * CENTRES[i] for i, n in ((1, 1), (2, 2), (3, 5)))
    np.testing.assert_allclose(theta(result.arrays), expected, atol=1e-7)


def test_many_rounds_reach_the_minimum_of_the_weighted_loss() -> None:
    """On quadratic losses of equal curvature the fixed point is the weighted mean of the centres."""
    grid = LocalGrid(quadratic_app(CENTRES, rate=0.3), NODES)
    result = ContributionAveraging().start(grid, model(np.ones(3)), num_rounds=60)
    expected = sum(n / 8 * CENTRES[i] for i, n in ((1, 1), (2, 2), (3, 5)))
    np.testing.assert_allclose(theta(result.arrays), expected, atol=1e-5)


def test_integer_buffers_are_never_averaged() -> None:
    """What is no floating-point parameter leaves a round as it entered it."""
    grid = LocalGrid(quadratic_app(CENTRES), NODES)
    result = ContributionAveraging().start(grid, model(np.zeros(3)), num_rounds=2)
    calls = msg.named_arrays(result.arrays)["calls"]
    assert calls.dtype == np.int64
    assert calls == 7


def test_barred_sites_are_never_asked() -> None:
    """Not one message of any type goes to a barred site."""
    grid = LocalGrid(quadratic_app(CENTRES), NODES)
    strategy = ContributionAveraging(barred=["node-2"])
    strategy.start(grid, model(np.zeros(3)), num_rounds=3)
    assert {message.metadata.dst_node_id for message in grid.sent} == {1, 3}


def test_last_guard_refuses_a_message_outside_the_list() -> None:
    """A message to a node that is not allowed stops everything before anything is sent."""
    grid = LocalGrid(quadratic_app(CENTRES), NODES)
    messages = [
        Message(msg.content(arrays=model(np.zeros(3)), config={}), dst_node_id=n, message_type=msg.TRAIN)
        for n in (1, 2)
    ]
    with pytest.raises(GuardError, match="node 2"):
        list(exchange(grid, messages, {1: "a"}, timeout=1))
    assert grid.sent == []


def test_bytes_that_were_not_sent_are_not_counted() -> None:
    """Who is barred before its turn, or whose message is not taken, got nothing; a silent site got it all."""

    class Picky(LocalGrid):
        def push_messages(self, messages: Iterable[Message]) -> list[str]:
            taken = [m for m in messages if m.metadata.dst_node_id != 2]
            barred.add("node-3")
            return super().push_messages(taken)

        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            found = super().pull_messages(message_ids)
            return [m for m in found if m.metadata.src_node_id != 4]

    barred: set[str] = set()
    centres = {**CENTRES, 4: np.ones(3)}
    grid = Picky(quadratic_app(centres), {**NODES, 4: {"examples": 1}})
    strategy = ContributionAveraging(window=1, timeout=0.2, barred_now=lambda: barred)
    (outcome,) = strategy.rounds(grid, model(np.zeros(3)), 1)
    found = {site.site: (site.outcome, site.bytes_down) for site in outcome.sites}
    sent = found["node-1"][1]
    assert sent > 0
    assert found == {
        "node-1": ("ok", sent),
        "node-2": ("node_unavailable", 0),
        "node-3": ("withdrawn", 0),
        "node-4": ("timeout", sent),
    }


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nan", "not finite"),
        ("shape", "has shape"),
        ("dtype", "has dtype"),
        ("foreign", "is not part of the model"),
        ("missing", "is missing"),
        ("empty", "exactly one model"),
        ("header", "cannot be decoded"),
        ("examples", "whole number above zero"),
        ("huge", "exceeds the limit"),
        ("raise", "kaboom"),
    ],
)
def test_a_bad_reply_is_refused_named_and_the_round_goes_on(fault: str, words: str) -> None:
    """Each kind of bad reply leaves the model as the other sites alone make it, and says why."""
    good = quadratic_app(CENTRES)
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = good(message, context)
        if context.node_id != 2:
            return reply
        arrays = msg.named_arrays(msg.arrays_of(reply))
        metrics: dict[str, float] = {msg.NUM_EXAMPLES: 2}
        if fault == "nan":
            arrays["theta"][1] = np.nan
        elif fault == "shape":
            arrays["theta"] = arrays["theta"][:2]
        elif fault == "dtype":
            arrays["theta"] = arrays["theta"].astype(np.float64)
        elif fault == "foreign":
            arrays["backdoor"] = np.zeros(1, np.float32)
        elif fault == "missing":
            del arrays["calls"]
        elif fault == "examples":
            metrics = {msg.NUM_EXAMPLES: -3}
        elif fault == "huge":
            arrays["theta"] = arrays["theta"] + 1e6
        elif fault == "raise":
            raise ZeroDivisionError("kaboom")
        if fault == "empty":
            return Message(msg.content(metrics=metrics), reply_to=message)
        record = msg.array_record(arrays)
        if fault == "header":
            record["theta"].data = record["theta"].data.replace(b"(3,)", b"(-3,")
        return Message(msg.content(arrays=record, metrics=metrics), reply_to=message)

    grid = LocalGrid(app, NODES)
    strategy = ContributionAveraging(screen=UpdateScreen(max_norm=100.0))
    outcome = next(strategy.rounds(grid, model(np.zeros(3)), 1))
    expected = (1 * CENTRES[1] + 5 * CENTRES[3]) / 6 * 0.1
    np.testing.assert_allclose(theta(outcome.arrays), expected, atol=1e-7)
    bad = next(site for site in outcome.sites if site.outcome != "ok")
    assert bad.site == "node-2"
    assert words in bad.reason


def test_norm_screen_learns_what_is_usual() -> None:
    """After three rounds an update far above the site's own median is refused."""
    screen = UpdateScreen(max_norm_ratio=5.0)
    jump = {"value": 1.0}
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = msg.named_arrays(msg.arrays_of(message))
        arrays["theta"] = arrays["theta"] + np.float32(jump["value"] if context.node_id == 1 else 1.0)
        metrics = {msg.NUM_EXAMPLES: 1}
        return Message(msg.content(arrays=msg.array_record(arrays), metrics=metrics), reply_to=message)

    strategy = ContributionAveraging(screen=screen)
    grid = LocalGrid(app, {1: {}, 2: {}})
    outcomes = []
    for outcome in strategy.rounds(grid, model(np.zeros(3)), 5):
        outcomes.append({site.site: site.outcome for site in outcome.sites})
        jump["value"] = 50.0 if outcome.round == 3 else 1.0
    assert [o["node-1"] for o in outcomes] == ["ok", "ok", "ok", "refused", "ok"]


def moving_app(length: Callable[[int, int], float]) -> ClientApp:
    """Sites whose update has a given length, by node and round; each claims one example."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = msg.named_arrays(msg.arrays_of(message))
        moved = length(context.node_id, int(str(msg.config_of(message)[msg.SERVER_ROUND])))
        arrays["theta"] = arrays["theta"] + np.float32(moved / np.sqrt(3))
        metrics = {msg.NUM_EXAMPLES: 1}
        return Message(msg.content(arrays=msg.array_record(arrays), metrics=metrics), reply_to=message)

    return app


def outcomes_of(app: ClientApp, sites: int, rounds: int, **options: Any) -> list[RoundOutcome]:
    """Rounds of the strategy as it is by default."""
    grid = LocalGrid(app, {node: {} for node in range(1, sites + 1)})
    return list(ContributionAveraging(**options).rounds(grid, model(np.zeros(3)), rounds))


def refused(outcome: RoundOutcome) -> list[str]:
    return [site.site for site in outcome.sites if site.outcome == "refused"]


@pytest.mark.parametrize("when", [1, 2, 3, 4])
@pytest.mark.parametrize("hostile", [1, 3])
def test_a_huge_update_is_refused_from_the_first_round_on(when: int, hostile: int) -> None:
    """By default, whoever sends it and in whichever round: the model is that of the others."""

    def length(node: int, server_round: int) -> float:
        return 1e6 if (node, server_round) == (hostile, when) else 1.0 + node

    found = outcomes_of(moving_app(length), sites=4, rounds=5)
    assert [refused(outcome) for outcome in found] == [
        [f"node-{hostile}"] if outcome.round == when else [] for outcome in found
    ]
    bad = next(site for site in found[when - 1].sites if site.outcome == "refused")
    assert "the update's norm 1e+06 exceeds the limit" in bad.reason
    assert bad.norm == 0
    assert f"node-{hostile}" not in found[when - 1].weights
    before = theta(found[when - 2].arrays) if when > 1 else np.zeros(3)
    others = [1.0 + node for node in range(1, 5) if node != hostile]
    np.testing.assert_allclose(
        theta(found[when - 1].arrays) - before, np.mean(others) / np.sqrt(3), rtol=1e-5
    )


def test_a_site_that_is_hostile_from_the_start_never_counts() -> None:
    """What was refused is no measure of what is usual: round after round is refused, for two of five too."""
    found = outcomes_of(moving_app(lambda node, _: 1e6 if node in (2, 5) else 1.0), sites=5, rounds=6)
    assert [refused(outcome) for outcome in found] == [["node-2", "node-5"]] * 6


def test_sites_of_very_different_sizes_are_all_honest() -> None:
    """Updates of lengths 10 : 1 count all, beside a site that changes nothing, and among three sites."""
    lengths = {1: 1.0, 2: 10.0, 3: 1.0, 4: 0.0, 5: 10.0}
    found = outcomes_of(moving_app(lambda node, _: lengths[node]), sites=5, rounds=4)
    assert [len(outcome.weights) for outcome in found] == [5] * 4
    found = outcomes_of(moving_app(lambda node, _: 10.0 if node == 3 else 1.0), sites=3, rounds=4)
    assert [len(outcome.weights) for outcome in found] == [3] * 4


def test_a_newcomer_is_measured_by_sites_that_are_known() -> None:
    """A site that joins later is judged by what the others have sent so far, also of those not there now."""
    screen = UpdateScreen()
    screen.recall({"node-1": [1.0] * 5, "node-9": [1.0, 1.2]})
    found = outcomes_of(moving_app(lambda node, _: 1e4 if node == 2 else 1.0), 2, 1, screen=screen)
    assert refused(found[0]) == ["node-2"]


def test_of_two_sites_nobody_is_judged() -> None:
    """Nothing tells which of two sites is wrong, so both count until their own updates are known."""
    found = outcomes_of(moving_app(lambda node, t: 1e6 if node == 2 and t in (1, 4) else 1.0), 2, 4)
    assert [refused(outcome) for outcome in found] == [[], [], [], ["node-2"]]


def test_sites_that_add_noise_are_not_measured_by_those_that_do_not() -> None:
    """An update under noise of the site's own is compared with others under the same noise only."""
    noisy = {"node-1": "noise", "node-2": "noise", "node-3": "noise"}
    screen = UpdateScreen(peers=noisy.get)
    lengths = {1: 3000.0, 2: 3000.0, 3: 1e7, 4: 1.0, 5: 1.0, 6: 1.0}
    found = outcomes_of(moving_app(lambda node, _: lengths[node]), 6, 1, screen=screen)
    assert refused(found[0]) == ["node-3"]


def test_too_few_replies_is_an_error_that_names_the_sites() -> None:
    """Below min_sites a round fails, nothing of it is kept, and every failing site is named."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        raise ValueError(f"disk of {context.node_id} is full")

    strategy = ContributionAveraging(min_sites=2)
    with pytest.raises(RoundError, match=r"node-1: app_error .*disk of 1 is full.*node-2"):
        next(strategy.rounds(LocalGrid(app, {1: {}, 2: {}}), model(np.zeros(3)), 1))


def test_the_result_does_not_depend_on_the_order_of_replies(tmp_path: Path) -> None:
    """Replies in any order give the same model and the same cache, bit for bit."""
    rng = np.random.default_rng(0)
    centres = {i: rng.standard_normal(50) * 10.0 ** rng.integers(-3, 3) for i in range(1, 8)}
    results = []
    for order in (sorted(centres), sorted(centres, reverse=True)):
        cache = ContributionCache.open(tmp_path / str(order[0]), CachePolicy(damping=0.1))
        grid = LocalGrid(quadratic_app(centres), {i: {"examples": i} for i in order})
        strategy = ContributionAveraging(cache=cache)
        arrays = strategy.start(grid, model(np.zeros(50)), num_rounds=4).arrays
        results.append((theta(arrays).tobytes(), cache.running("node-3", "specific").tobytes()))
    assert results[0] == results[1]


def test_cache_identity_without_damping(tmp_path: Path) -> None:
    """With a = 0, w_T − U_u equals w₀ plus the remaining sites' averages along the same path."""
    cache = ContributionCache.open(tmp_path)
    grid = LocalGrid(quadratic_app(CENTRES), NODES)
    strategy = ContributionAveraging(cache=cache)
    arrays = model(np.array([5.0, -3.0, 1.0]))
    without = theta(arrays).astype(np.float64)
    for outcome in strategy.rounds(grid, arrays, 6):
        start = theta(arrays).astype(np.float64)
        without += sum(n / 6 * 0.1 * (CENTRES[i] - start) for i, n in ((1, 1), (3, 5)))
        strategy.commit(outcome.round)
        arrays = outcome.arrays
    np.testing.assert_allclose(theta(arrays) - cache.running("node-2", "specific"), without, atol=1e-5)


def test_stock_flower_loop_can_drive_the_strategy() -> None:
    """configure_train and aggregate_train alone, as Flower's own Strategy.start calls them, average too."""
    from flwr.app import ConfigRecord

    grid = LocalGrid(quadratic_app(CENTRES, rate=0.1), NODES)
    strategy = ContributionAveraging()
    replies = grid.send_and_receive(strategy.configure_train(1, model(np.zeros(3)), ConfigRecord(), grid))
    arrays, metrics = strategy.aggregate_train(1, replies)
    assert arrays is not None
    assert metrics is not None
    expected = sum(n / 8 * 0.1 * CENTRES[i] for i, n in ((1, 1), (2, 2), (3, 5)))
    np.testing.assert_allclose(theta(arrays), expected, atol=1e-7)
    assert metrics["sites"] == 3


def test_sites_without_examples_have_no_say() -> None:
    """A site with zero examples is left out of the mean; with no other there is no mean."""
    values = {"a": {"num-examples": 0.0, "loss": 9.0}, "b": {"num-examples": 2.0, "loss": 1.0}}
    assert dict(weighted_metrics(values) or {}) == {"loss": 1.0}
    assert weighted_metrics({"a": values["a"]}) is None
    assert weighted_metrics({}) is None


def test_start_keeps_the_timeout_of_the_constructor() -> None:
    """The constructor's timeout holds unless start is given another."""
    grid = LocalGrid(quadratic_app({1: np.zeros(3)}), {1: {}})
    strategy = ContributionAveraging(timeout=7.0)
    strategy.start(grid, model(np.ones(3)), num_rounds=1)
    assert strategy.timeout == 7.0
    strategy.start(grid, model(np.ones(3)), num_rounds=1, timeout=9.0)
    assert strategy.timeout == 9.0


def test_updates_do_not_lie_around_after_the_round(tmp_path: Path) -> None:
    """The spool is empty once a round is committed, with a cache and without."""
    grid = LocalGrid(quadratic_app({1: np.zeros(3), 2: np.ones(3)}), {1: {}, 2: {}})
    for cache in (None, ContributionCache.open(tmp_path / "c")):
        strategy = ContributionAveraging(cache=cache, spool=tmp_path / "spool")
        strategy.start(grid, model(np.ones(3)), num_rounds=2)
        assert list((tmp_path / "spool").iterdir()) == []
