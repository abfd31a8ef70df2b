"""Messages on their way: who may be sent one, what becomes of it, and who is waited for no more."""

from __future__ import annotations

import secrets
import time
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Message
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from reconsent.errors import GuardError
from strategies import messages as msg
from strategies.local_grid import LocalGrid
from strategies.underway import Underway
from tests.linear_app import model, quadratic_app

NODES = {1: "a", 2: "b", 3: "c"}


def local_grid() -> LocalGrid:
    return LocalGrid(quadratic_app(dict.fromkeys(NODES, np.zeros(3))), {n: {} for n in NODES})


def questions(*nodes: int, ttl: float = 60.0) -> list[Message]:
    content = msg.content(arrays=model(np.ones(3)), config={msg.SERVER_ROUND: 1})
    return [Message(content, dst_node_id=n, message_type=msg.TRAIN, ttl=ttl) for n in nodes]


def test_each_message_is_answered_once() -> None:
    """What was sent is underway until it is answered; a look at nothing finds nothing."""
    underway = Underway(local_grid(), 60.0)
    assert list(underway.answers()) == [] and not underway
    assert underway.send(questions(1, 2), NODES) == []
    assert (len(underway), underway.nodes) == (2, {1, 2})
    assert [(r.node_id, r.site, r.status) for r in underway.answers()] == [(1, "a", "ok"), (2, "b", "ok")]
    assert not underway and underway.next_deadline == float("inf")


def test_nothing_is_sent_if_one_is_for_a_stranger() -> None:
    """The guard looks at all of them before the first goes out."""
    grid = local_grid()
    underway = Underway(grid, 60.0)
    with pytest.raises(GuardError, match="node 3, which is not on the list"):
        underway.send(questions(1, 3), {1: "a", 2: "b"})
    assert grid.sent == [] and not underway


def test_who_was_barred_meanwhile_is_not_sent_anything() -> None:
    """The others are; the one is told of as withdrawn and not sent."""
    grid = local_grid()
    underway = Underway(grid, 60.0)
    (unsent,) = underway.send(questions(1, 2), NODES, gone={"b"})
    assert (unsent.node_id, unsent.status, unsent.sent) == (2, "withdrawn", False)
    assert [m.metadata.dst_node_id for m in grid.sent] == [1]


def test_who_is_forgotten_is_not_heard() -> None:
    """Nothing more comes of its message, neither an answer nor a timeout."""
    underway = Underway(local_grid(), 0.0)
    underway.send(questions(1, 2), NODES)
    underway.forget({1})
    assert underway.nodes == {2}
    assert [(r.node_id, r.status) for r in underway.answers()] == [(2, "ok")], "it is there, if late"


@pytest.mark.parametrize("pace", [1.0, 0.5])
def test_a_message_that_outlived_its_time_on_flowers_grid_is_a_timeout(
    pace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower's link state calls an expired message unavailable; here it is said that the site did not answer,
    also where the clock on the wall, by which it expires, is ahead of the one by which it is waited for.
    """  # noqa: D205 - one sentence
    began = time.monotonic()
    slow = SimpleNamespace(monotonic=lambda: pace * (time.monotonic() - began), time=time.time)
    monkeypatch.setattr("strategies.underway.time", slow)
    factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
    state = factory.state()
    run_id = state.create_run(
        "", "", "", {}, NOOP_FEDERATION_ID, None, None, primary_task_type=TaskType.SERVER_APP
    )
    monkeypatch.setattr(TaskIdentity, "_run_id", run_id)
    nodes = [state.create_node("aid", "name", secrets.token_bytes(32), heartbeat_interval=60) for _ in "ab"]
    for node in nodes:
        state.acknowledge_node_heartbeat(node, heartbeat_interval=60)
    grid = InMemoryGrid(factory)
    grid.set_run(state.get_run_info(run_ids=[run_id])[0])
    allowed = dict(zip(nodes, ("a", "b"), strict=True))
    messages = questions(*nodes, ttl=0.3)
    time.sleep(0.35)  # Made long ago: their time counts from the send all the same.
    underway, replies = Underway(grid, 0.3), []
    underway.send(messages, allowed)
    assert list(underway.answers()) == []
    while underway:
        replies += underway.answers()
        time.sleep(0.02)
    assert sorted((r.site, r.status) for r in replies) == [("a", "timeout"), ("b", "timeout")]
