"""Sending to chosen nodes and taking replies one by one: windows, timeouts, and how often it looks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as st

from strategies import ContributionAveraging
from strategies import messages as msg
from strategies.exchange import (
    LONGEST_POLL_SECONDS,
    POLL_SHARE,
    SHORTEST_POLL_SECONDS,
    exchange,
    poll_seconds,
)
from strategies.local_grid import LocalGrid
from strategies.replies import Reply
from tests.linear_app import model, quadratic_app
from unlearning.contributions import ContributionCache

RNG = np.random.default_rng(3)


class LateGrid(LocalGrid):
    """A local grid on which each node's reply is there only some seconds after its message was sent."""

    def __init__(self, delays: Mapping[int, float]) -> None:
        super().__init__(quadratic_app(dict.fromkeys(delays, np.zeros(3))), {n: {} for n in delays})
        self.delays = delays
        self.ready: dict[str, float] = {}
        self.looks: list[float] = []
        self.groups: list[int] = []
        self.underway = 0
        self.most_underway = 0

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Hand out, and note when each reply will be there."""
        group = list(messages)
        identifiers = super().push_messages(group)
        now = time.monotonic()
        for identifier, message in zip(identifiers, group, strict=True):
            self.ready[identifier] = now + self.delays[message.metadata.dst_node_id]
        self.groups.append(len(group))
        self.underway += len(group)
        self.most_underway = max(self.most_underway, self.underway)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies whose time has come; every look is noted."""
        now = time.monotonic()
        self.looks.append(now)
        found = super().pull_messages([m for m in message_ids if self.ready[m] <= now])
        self.underway -= len(found)
        return found


def to_train(nodes: Iterable[int], ttl: float = 60.0) -> list[Message]:
    content = msg.content(arrays=model(np.ones(3)), config={msg.SERVER_ROUND: 1})
    return [Message(content, dst_node_id=n, message_type=msg.TRAIN, ttl=ttl) for n in nodes]


def run(grid: LateGrid, *, timeout: float, window: int | None = None) -> list[Reply]:
    allowed = {n: f"site-{n}" for n in grid.delays}
    return list(exchange(grid, to_train(allowed), allowed, timeout=timeout, window=window))


@pytest.mark.parametrize("window", [1, 3, 20, None])
def test_no_more_messages_are_underway_than_the_window_allows(window: int | None) -> None:
    """Every node is asked once and answers, and at no time are more than ``window`` replies outstanding."""
    grid = LateGrid({n: 0.01 * (n % 3) for n in range(1, 9)})
    replies = run(grid, timeout=10, window=window)
    assert sorted(reply.node_id for reply in replies) == list(range(1, 9))
    assert all(reply.status == "ok" for reply in replies)
    assert grid.most_underway == min(window or 8, 8)
    assert sum(grid.groups) == 8


def test_a_window_changes_nothing_of_the_result(tmp_path: Path) -> None:
    """Model and cache are the same, bit for bit, with any window."""
    centres = {i: RNG.standard_normal(50) * 10.0 ** RNG.integers(-3, 3) for i in range(1, 8)}
    results = []
    for window in (None, 1, 3):
        cache = ContributionCache.open(tmp_path / str(window))
        grid = LocalGrid(quadratic_app(centres), {i: {"examples": i} for i in centres})
        strategy = ContributionAveraging(cache=cache, window=window)
        arrays = strategy.start(grid, model(np.zeros(50)), num_rounds=3).arrays
        theta = msg.named_arrays(arrays)["theta"]
        results.append((theta.tobytes(), cache.running("node-3", "specific").tobytes()))
    assert results[0] == results[1] == results[2]


def test_each_node_has_its_whole_time_from_when_it_is_asked() -> None:
    """A node that waited its turn behind a silent one is not timed out for that."""
    grid = LateGrid({1: 60.0, 2: 0.2, 3: 0.2})
    began = time.monotonic()
    replies = run(grid, timeout=0.4, window=1)
    assert [(r.node_id, r.status) for r in replies] == [(1, "timeout"), (2, "ok"), (3, "ok")]
    assert replies[0].reason == "no answer within 0.4 s"
    assert time.monotonic() - began > 0.75


def test_all_together_time_out_together() -> None:
    """Without a window the silent nodes cost one timeout, not one each."""
    grid = LateGrid(dict.fromkeys(range(1, 6), 60.0))
    began = time.monotonic()
    replies = run(grid, timeout=0.3)
    assert [r.status for r in replies] == ["timeout"] * 5
    assert 0.3 <= time.monotonic() - began < 1.0


def test_a_reply_that_is_there_counts_however_late_one_looks() -> None:
    """Whoever takes long over one reply does not lose the others that came meanwhile."""
    grid = LateGrid({1: 0.0, 2: 0.0})
    allowed = {1: "a", 2: "b"}
    statuses = []
    for reply in exchange(grid, to_train(allowed), allowed, timeout=0.1):
        statuses.append(reply.status)
        time.sleep(0.2)
    assert statuses == ["ok", "ok"]


@given(quiet=st.floats(0, 1e6), longer=st.floats(0, 1e6))
def test_intervals_grow_within_limits(quiet: float, longer: float) -> None:
    """The interval lies within its limits, never shrinks, and beyond the shortest is a share of the wait."""
    interval = poll_seconds(quiet)
    assert SHORTEST_POLL_SECONDS <= interval <= LONGEST_POLL_SECONDS
    assert poll_seconds(quiet + longer) >= interval
    assert interval <= max(SHORTEST_POLL_SECONDS, POLL_SHARE * quiet)


def test_looks_become_rarer_while_nothing_comes_and_frequent_again_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 100 s of silence there are few looks; after a reply the interval begins anew."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    grid = LateGrid({1: 100.0, 2: 102.0})
    replies = run(grid, timeout=1000)
    assert [r.node_id for r in replies] == [1, 2]
    at = np.unique(grid.looks)
    pauses = np.diff(at)
    before, after = pauses[at[1:] <= 100], pauses[at[:-1] > 100]
    assert before[0] == pytest.approx(SHORTEST_POLL_SECONDS)
    assert before[-1] == pytest.approx(LONGEST_POLL_SECONDS)
    assert len(before) < 350
    assert after[0] == pytest.approx(SHORTEST_POLL_SECONDS)


def test_a_site_that_is_barred_while_it_waits_its_turn_is_not_asked() -> None:
    """With a window, a withdrawal during the round keeps back the messages that were not sent yet."""
    grid = LateGrid(dict.fromkeys((1, 2, 3), 0.0))
    allowed = {n: f"site-{n}" for n in grid.delays}
    barred: set[str] = set()
    statuses = {}
    messages = to_train(allowed)
    for reply in exchange(grid, messages, allowed, timeout=10, window=1, barred=lambda: barred):
        statuses[reply.node_id] = reply.status
        barred.add("site-3")
    assert statuses == {1: "ok", 2: "ok", 3: "withdrawn"}
    assert {message.metadata.dst_node_id for message in grid.sent} == {1, 2}


def test_a_site_that_is_barred_while_it_works_is_not_waited_for() -> None:
    """Its reply is refused if it is there, and if not the round soon ends without it."""
    grid = LateGrid({1: 0.0, 2: 60.0})
    barred: set[str] = set()
    allowed = {n: f"site-{n}" for n in grid.delays}
    statuses = []
    began = time.monotonic()
    for reply in exchange(grid, to_train(allowed), allowed, timeout=60, barred=lambda: barred):
        statuses.append((reply.node_id, reply.status))
        barred.add("site-2")
    assert statuses == [(1, "ok"), (2, "withdrawn")]
    assert time.monotonic() - began < 5


def test_bytes_of_a_reply_that_is_refused_are_told() -> None:
    """A model that came from a site barred meanwhile is not handed on, but it was received."""
    grid = LateGrid({1: 0.0, 2: 0.0})
    barred: set[str] = set()
    allowed = {n: f"site-{n}" for n in grid.delays}
    replies = []
    for reply in exchange(grid, to_train(allowed), allowed, timeout=60, barred=lambda: barred):
        replies.append(reply)
        barred.add("site-2")
    assert [reply.status for reply in replies] == ["ok", "withdrawn"]
    assert replies[0].message is not None and replies[1].message is None
    assert replies[0].received == replies[1].received == msg.model_bytes(replies[0].message) > 0


def test_a_message_that_is_not_taken_is_not_waited_for() -> None:
    """What the grid does not take (a node that left, a message too large) is said at once, for each node."""
    grid = LateGrid({1: 0.0, 2: 0.0, 3: 0.0})
    grid.push_messages = lambda _: []  # type: ignore[method-assign]
    began = time.monotonic()
    replies = run(grid, timeout=30)
    assert [(r.node_id, r.status) for r in replies] == [(n, "node_unavailable") for n in (1, 2, 3)]
    assert time.monotonic() - began < 10
