"""Nodes that come and go, with keys or without, for a server that serves them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo  # type: ignore[attr-defined]

from server import membership
from server.node_keys import fingerprint
from server.persistence import Enrolments, StateDirectory
from server.service import Service, Task
from strategies.local_grid import LocalGrid
from tests.linear_app import hospital_app
from tests.server.hospitals import SITES, Run, centres, consortium, opened

CONFIG = consortium(
    training={"min-sites": 4, "wait-seconds": 0.5, "evaluate-every": 0},
    unlearning={"method": "retain-ft", "settings": {}, "rounds-fraction": 1.0},
)
PATIENT = consortium(
    training={"min-sites": 4, "wait-seconds": 60, "evaluate-every": 0},
    unlearning={"method": "retain-ft", "settings": {}, "rounds-fraction": 1.0},
)


class Comings(LocalGrid):
    """Nodes with keys that come and go; whoever is offline answers nothing."""

    def __init__(self) -> None:
        configs = {n: {"site": site, "examples": n} for n, site in enumerate(SITES, start=1)}
        super().__init__(hospital_app(centres()), configs)
        self.keys = {n: new_key() for n in configs}
        self.offline: set[int] = set()
        self.on_train: Callable[[int], None] = lambda _round: None
        self.cut_off: set[int] = set()
        """Nodes that count as online until a message to them is missed, and are back before anybody looks."""
        self.goes_after_answering: set[int] = set()
        self.activated: dict[int, int] = {}
        """How often each node came (back)."""
        self.silent: set[int] = set()
        """Nodes whose answers do not come."""
        self.on_identify: Callable[[], None] = lambda: None
        self.kept_seconds: list[float] = []
        """For how long Flower keeps each question, and its answer."""

    def add(self, node_id: int, site: str, key: bytes | None = None) -> None:
        """Start a node."""
        self._nodes[node_id] = {"site": site, "examples": SITES.index(site) + 1}
        self.keys[node_id] = key or new_key()

    def get_node_ids(self) -> list[int]:
        """Those online."""
        return [n for n in self._nodes if n not in self.offline]

    def restart(self, node_id: int) -> None:
        """It is gone and back before anybody looks; whatever it was asked, it answers no more."""
        self.activated[node_id] = self.activated.get(node_id, 0) + 1
        for message_id in [m for m in self._replies if self._asked_of(m) == node_id]:
            del self._replies[message_id]

    def get_nodes(self) -> list[Any]:
        """The same with their keys, and since when they are there, as a SuperLink tells them."""
        since = {n: str(self.activated.get(n, 0)) for n in self.get_node_ids()}
        return [NodeInfo(node_id=n, public_key=self.keys[n], last_activated_at=since[n]) for n in since]

    def push_messages(self, messages: Any) -> list[str]:
        """Tell of training messages first."""
        listed = list(messages)
        self.kept_seconds += [m.metadata.ttl for m in listed if m.metadata.message_type == "query.identify"]
        if listed and listed[0].metadata.message_type == "train":
            self.on_train(int(listed[0].metadata.group_id))
        taken = super().push_messages([m for m in listed if m.metadata.dst_node_id not in self.offline])
        if listed and listed[0].metadata.message_type == "query.identify":
            self.on_identify()
        return taken

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """For nodes that turn out to be offline, the error that a SuperLink makes up."""
        there = [m for m in message_ids if self._asked_of(m) not in self.silent | self.offline]
        replies = super().pull_messages(there)
        for n, reply in enumerate(replies):
            if (node_id := reply.metadata.src_node_id) in self.cut_off:
                self.cut_off.remove(node_id)
                self.restart(node_id)
                error = Error(ErrorCode.NODE_UNAVAILABLE, "no heartbeat")
                replies[n] = Message(error, reply_to=Message(RecordDict(), node_id, "query.identify"))
            elif node_id in self.goes_after_answering:
                self.goes_after_answering.remove(node_id)
                self.offline.add(node_id)
        return replies

    def _asked_of(self, message_id: str) -> int | None:
        waiting = self._replies.get(message_id)
        return waiting[1] if isinstance(waiting, tuple) else None

    def asked(self, node_id: int) -> list[str]:
        """Types of the messages that a node was sent."""
        return [m.metadata.message_type for m in self.sent if m.metadata.dst_node_id == node_id]


def new_key() -> bytes:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def carry_out(run: Run, kind: Any, rounds: int = 0) -> None:
    Service(run.coordinator).carry_out(Task(kind, rounds))


def serving(path: Path, nodes: LocalGrid, config: Any = CONFIG) -> Any:
    return opened(path, config, nodes, simulated=False)


def enrol(path: Path, nodes: Comings, *node_ids: int) -> None:
    """Bind the keys of nodes to the sites they say they are."""
    with StateDirectory.open(path / "state", url="", exclusive=False) as state:
        for node_id in node_ids:
            site = nodes._nodes[node_id]["site"]
            Enrolments(state).enrol(site, fingerprint(nodes.keys[node_id]), node_id=node_id)


def enrolled(path: Path) -> Comings:
    """The nodes of all sites, whose keys are enrolled in a new state."""
    nodes = Comings()
    with serving(path, nodes, consortium()):
        pass
    enrol(path, nodes, 1, 2, 3, 4)
    return nodes


def sleeping(monkeypatch: pytest.MonkeyPatch, *then: Callable[[], None]) -> None:
    """Do something instead of each of the first seconds of waiting."""
    steps = list(then)

    def sleep(_seconds: float) -> None:
        if steps:
            steps.pop(0)()

    # The module's own clock: whatever else sleeps meanwhile, a command that is waited for, is not meant.
    monkeypatch.setattr(membership, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
