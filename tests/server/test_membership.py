"""Sites that are missing, come back, restart under a new id, or have the wrong key."""

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

from reconsent.errors import RoundError
from server import membership
from server.bookkeeping import MAIN
from server.node_keys import fingerprint
from server.persistence import Enrolments, SiteStatus, StateDirectory, Withdrawals
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
        """Nodes that count as online until a message to them is missed, and are back a moment later."""
        self._back_at: dict[int, float] = {}
        self.silent: set[int] = set()
        """Nodes whose answers do not come."""
        self.on_identify: Callable[[], None] = lambda: None

    def add(self, node_id: int, site: str, key: bytes | None = None) -> None:
        """Start a node."""
        self._nodes[node_id] = {"site": site, "examples": SITES.index(site) + 1}
        self.keys[node_id] = key or new_key()

    def get_node_ids(self) -> list[int]:
        """Those online."""
        gone = {n for n, moment in self._back_at.items() if time.monotonic() < moment}
        return [n for n in self._nodes if n not in self.offline | gone]

    def get_nodes(self) -> list[Any]:
        """The same with their keys, as a SuperLink tells them."""
        return [NodeInfo(node_id=n, public_key=self.keys[n]) for n in self.get_node_ids()]

    def push_messages(self, messages: Any) -> list[str]:
        """Tell of training messages first."""
        listed = list(messages)
        if listed and listed[0].metadata.message_type == "train":
            self.on_train(int(listed[0].metadata.group_id))
        taken = super().push_messages([m for m in listed if m.metadata.dst_node_id not in self.offline])
        if listed and listed[0].metadata.message_type == "query.identify":
            self.on_identify()
        return taken

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """For nodes that turn out to be offline, the error that a SuperLink makes up."""
        there = [m for m in message_ids if self._asked_of(m) not in self.silent]
        replies = super().pull_messages(there)
        for n, reply in enumerate(replies):
            if (node_id := reply.metadata.src_node_id) in self.cut_off:
                self.cut_off.remove(node_id)
                self._back_at[node_id] = time.monotonic() + 1.0
                error = Error(ErrorCode.NODE_UNAVAILABLE, "no heartbeat")
                replies[n] = Message(error, reply_to=Message(RecordDict(), node_id, "query.identify"))
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
    with StateDirectory.open(path / "state", url="") as state:
        for node_id in node_ids:
            site = nodes._nodes[node_id]["site"]
            Enrolments(state).enrol(site, fingerprint(nodes.keys[node_id]), node_id=node_id)


def sleeping(monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
    """Do something instead of the first second of waiting."""
    done: list[bool] = []

    def sleep(_seconds: float) -> None:
        if not done:
            done.append(True)
            then()

    # The module's own clock: whatever else sleeps meanwhile, a command that is waited for, is not meant.
    monkeypatch.setattr(membership, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))


def test_gives_up_after_waiting_and_resumes(tmp_path: Path) -> None:
    """Below min-sites the run says that it waits, then ends naming who is missing; the next one goes on."""
    nodes = Comings()
    nodes.on_train = lambda number: nodes.offline.add(4) if number == 2 else None
    with serving(tmp_path, nodes) as run:
        with pytest.raises(RoundError, match=r"Only 3 sites were online for .* Missing: delta") as caught:
            carry_out(run, "train", 3)
        assert "resume" in caught.value.remedy
        waiting = [text for text in run.texts("notice") if "Waiting for sites" in text]
        assert len(waiting) == 1, "once, not twice the time"
        assert "3 of the 4 needed are online, missing delta" in waiting[0]
        assert run.books.log.count(MAIN) == 1
    nodes.offline.clear()
    nodes.on_train = lambda _: None
    with serving(tmp_path, nodes) as run:
        carry_out(run, "resume")
        assert run.books.log.count(MAIN) == 3


@pytest.mark.parametrize("when", ["train", "unlearn"])
def test_goes_on_when_the_site_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A site that is back before the time is up costs nothing but the wait, in training and unlearning."""
    nodes = Comings()
    config = PATIENT
    if when == "unlearn":
        config = PATIENT.model_copy(update={"training": PATIENT.training.model_copy(update={"min_sites": 3})})
    number = 2 if when == "train" else 4
    nodes.on_train = lambda t: nodes.offline.add(1) if t == number else None

    def back() -> None:
        nodes.offline.clear()
        nodes.on_train = lambda _: None

    sleeping(monkeypatch, back)
    with serving(tmp_path, nodes, config) as run:
        carry_out(run, "train", 2)
        if when == "unlearn":
            Withdrawals(run.coordinator.state).file(["delta"], reason="asked", requested_by="officer")
            carry_out(run, "unlearn")
            assert run.books.roster.get("delta").status is SiteStatus.WITHDRAWN
            assert run.books.log.count(MAIN, "retain") == 2
        assert any("Waiting for sites" in text for text in run.texts("notice"))
        assert any("going on" in text for text in run.texts("notice"))
        assert all(o.outcome == "ok" for r in run.books.log.all(MAIN) for o in r.sites.values())


def test_too_many_have_withdrawn(tmp_path: Path) -> None:
    """Where fewer sites remain than a round needs, waiting would be in vain: the error says so at once."""
    with serving(tmp_path, Comings(), PATIENT) as run:
        carry_out(run, "train", 1)
        Withdrawals(run.coordinator.state).file(["delta"], reason="asked", requested_by="officer")
        with pytest.raises(RoundError, match="Only 3 sites remain, and a round needs 4") as caught:
            carry_out(run, "unlearn")
        assert "min-sites" in caught.value.remedy
        assert run.books.roster.get("delta").status is SiteStatus.RESTRICTED


def test_restarted_under_a_new_id_without_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node restarted under a new id is let in when its old self is gone, though it was refused before."""
    nodes = Comings()

    def restart(number: int) -> None:
        if number == 2:
            nodes.add(40, "delta")  # The old one seems to be online until its heartbeat is missed.
        if number == 3:
            nodes.offline.add(4)

    nodes.on_train = restart
    with serving(tmp_path, nodes, PATIENT) as run:
        carry_out(run, "train", 4)
        assert run.coordinator.active_nodes()[40] == "delta"
        assert any("another node is already" in text for text in run.texts("notice"))
        assert run.texts("notice")[-1] != ""
        assert run.books.log.count(MAIN) == 4
        assert nodes.asked(40).count("train") >= 1


def test_a_newcomer_joins_between_rounds(tmp_path: Path) -> None:
    """A site that comes late takes part from the next round on; strangers are asked once who they are."""
    nodes = Comings()
    nodes.offline.add(4)
    nodes.add(50, "alpha")

    def come(number: int) -> None:
        if number == 2:
            nodes.offline.clear()

    nodes.on_train = come
    config = consortium(training={"evaluate-every": 0})
    with serving(tmp_path, nodes, config) as run:
        carry_out(run, "train", 4)
        assert ["delta" in r.sites for r in run.books.log.all(MAIN)] == [False, False, True, True]
        assert "Site delta has joined." in run.texts("notice")
        assert nodes.asked(50) == ["query.identify"] * len(nodes.asked(50))
        assert len(nodes.asked(50)) <= 2


def test_node_without_an_enrolled_key_is_never_asked(tmp_path: Path) -> None:
    """Where keys are enrolled, a node with another one gets no message of any kind until its is too."""
    nodes = Comings()
    with serving(tmp_path, nodes, consortium()) as run:
        assert run.books.log.count(MAIN) == 0
    enrol(tmp_path, nodes, 1, 2, 3)

    def later(number: int) -> None:
        if number == 2:
            assert nodes.asked(4) == []
            with StateDirectory.open(tmp_path / "state", url="", exclusive=False) as state:
                Enrolments(state).enrol("delta", fingerprint(nodes.keys[4]), node_id=4)

    nodes.on_train = later
    with serving(tmp_path, nodes, consortium(training={"evaluate-every": 0})) as run:
        carry_out(run, "train", 3)
        assert ["delta" in r.sites for r in run.books.log.all(MAIN)] == [False, False, True]


def test_node_that_is_not_whom_its_key_says(tmp_path: Path) -> None:
    """A node that names another site than that of its key is refused, and the run's events say so."""
    nodes = Comings()
    with serving(tmp_path, nodes, consortium()):
        pass
    enrol(tmp_path, nodes, 1, 2, 3, 4)
    nodes._nodes[4]["site"] = "gamma"
    nodes._nodes[3]["site"] = "delta"
    with serving(tmp_path, nodes, consortium(training={"evaluate-every": 0})) as run:
        carry_out(run, "train", 1)
        assert set(run.coordinator.active_nodes()) == {1, 2}
        assert any(
            "says it is site 'delta', but its key is enrolled for site 'gamma'" in text
            for text in run.texts("notice")
        )
        assert nodes.asked(3) == nodes.asked(4) == ["query.identify"]


def test_revoked_key(tmp_path: Path) -> None:
    """From the moment its key is revoked a node is asked nothing; a new key brings the site back."""
    nodes = Comings()
    with serving(tmp_path, nodes, consortium()):
        pass
    enrol(tmp_path, nodes, 1, 2, 3, 4)
    asked_before: list[int] = []

    def change(number: int) -> None:
        with StateDirectory.open(tmp_path / "state", url="", exclusive=False) as state:
            if number == 2:
                Enrolments(state).revoke("delta", "stolen")
                asked_before.append(len(nodes.asked(4)) + 1)  # The message of this very round is underway.
            if number == 4:
                nodes.add(44, "delta")
                Enrolments(state).enrol("delta", fingerprint(nodes.keys[44]), node_id=44)

    nodes.on_train = change
    with serving(tmp_path, nodes, consortium(training={"evaluate-every": 0})) as run:
        carry_out(run, "train", 5)
        outcomes = [r.sites["delta"].outcome if "delta" in r.sites else "" for r in run.books.log.all(MAIN)]
        assert outcomes == ["ok", "withdrawn", "", "", "ok"], "a late reply is refused, too"
        assert len(nodes.asked(4)) == asked_before[0]
        assert run.books.roster.get("delta").node_id == 44


@pytest.mark.parametrize("lingers", [True, False])
def test_replaced_key(tmp_path: Path, lingers: bool) -> None:
    """A key replaced in the middle of a round: the old node's reply is refused, the new one takes over."""
    nodes = Comings()
    with serving(tmp_path, nodes, consortium()):
        pass
    enrol(tmp_path, nodes, 1, 2, 3, 4)

    def change(number: int) -> None:
        if number == 2:
            with StateDirectory.open(tmp_path / "state", url="", exclusive=False) as state:
                nodes.add(44, "delta")
                Enrolments(state).revoke("delta", "replaced")
                Enrolments(state).enrol("delta", fingerprint(nodes.keys[44]), node_id=44)
        if number == 3 and not lingers:
            nodes.offline.add(4)  # As Flower ends a node that it does not know any more.

    nodes.on_train = change
    with serving(tmp_path, nodes, consortium(training={"evaluate-every": 0})) as run:
        carry_out(run, "train", 4)
        assert [r.sites["delta"].outcome for r in run.books.log.all(MAIN)] == ["ok", "withdrawn", "ok", "ok"]
        assert nodes.asked(4) == ["query.identify", "train", "train"]
        assert run.coordinator.active_nodes()[44] == "delta"


def test_who_was_cut_off_when_a_run_began_takes_part_in_it(tmp_path: Path) -> None:
    """Nobody has noticed yet that the node is offline; it is asked again, and not waited for in vain."""
    nodes = Comings()
    nodes.cut_off.add(4)
    began = time.monotonic()
    with serving(tmp_path, nodes, consortium(training={"join-seconds": 60.0})) as run:
        carry_out(run, "train", 2)
        assert ["delta" in record.sites for record in run.books.log.all(MAIN)] == [True, True]
        assert nodes.asked(4).count("query.identify") == 2
        assert sum("node_unavailable: no heartbeat" in text for text in run.texts("notice")) == 1
    assert time.monotonic() - began < 30


def test_nobody_is_waited_for_longer_than_sites_are(tmp_path: Path) -> None:
    """A node that does not say who it is holds a run up for the time to join, and no longer."""
    nodes = Comings()
    nodes.silent.add(4)
    began = time.monotonic()
    with serving(tmp_path, nodes, consortium(training={"join-seconds": 0.5})) as run:
        carry_out(run, "train", 1)
        assert "delta" not in run.coordinator.active_nodes().values()
    assert time.monotonic() - began < 10


def test_a_newcomer_that_takes_its_time_holds_no_round_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round waits a moment for newcomers' answers, not the time they have; one that comes late is heard."""
    monkeypatch.setattr(membership, "GREETING_SECONDS", 0.3)
    nodes = Comings()
    nodes.offline.add(4)
    nodes.silent.add(4)

    def come(number: int) -> None:
        if number == 1:
            nodes.offline.clear()
        if number == 3:
            nodes.silent.clear()

    nodes.on_train = come
    began = time.monotonic()
    config = consortium(training={"evaluate-every": 0, "join-seconds": 5.0})
    with serving(tmp_path, nodes, config) as run:
        carry_out(run, "train", 5)
        assert ["delta" in r.sites for r in run.books.log.all(MAIN)] == [False, False, False, True, True]
        assert nodes.asked(4).count("query.identify") == 1, "it is not asked again while it may answer"
        assert run.texts("notice").count("Site delta has joined.") == 1
    assert time.monotonic() - began < 20


def test_a_node_with_a_key_that_comes_while_a_run_waits_for_sites(tmp_path: Path) -> None:
    """Its key is known from when it is there, not from when the waiting began: it is let in at once."""
    nodes = Comings()
    with serving(tmp_path, nodes, consortium()):
        pass
    enrol(tmp_path, nodes, 1, 2, 3, 4)
    nodes.offline.add(4)
    nodes.on_identify = nodes.offline.clear
    with serving(tmp_path, nodes, consortium(training={"join-seconds": 30.0})) as run:
        began = time.monotonic()
        carry_out(run, "train", 1)
        assert time.monotonic() - began < 20
        assert "delta" in run.books.log.all(MAIN)[0].sites
        assert run.texts("notice") == []


def test_a_key_revoked_while_its_node_is_asked(tmp_path: Path) -> None:
    """Who had a key when asked and has none when it answers is not let in, as if it had none."""
    nodes = Comings()
    with serving(tmp_path, nodes, consortium()):
        pass
    enrol(tmp_path, nodes, 1, 2, 3, 4)

    def revoke() -> None:
        with StateDirectory.open(tmp_path / "state", url="", exclusive=False) as state:
            Enrolments(state).revoke("delta", "stolen")
        nodes.on_identify = lambda: None

    nodes.on_identify = revoke
    config = consortium(training={"evaluate-every": 0, "join-seconds": 0.5})
    with serving(tmp_path, nodes, config) as run:
        carry_out(run, "train", 1)
        assert "delta" not in {entry.site for entry in run.books.roster.all()}
        assert nodes.asked(4) == ["query.identify"]
