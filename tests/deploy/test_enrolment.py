"""Sites get keys, and come back with new ones; what is broken off is done by repeating the command."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from deploy.admission import admit
from deploy.enrolment import enrol_site, readmit_site
from deploy.flower_control import FlowerControl, Node
from deploy.keys import NodeKey, node_key, public_key_fingerprint
from reconsent.errors import DeployError, SiteError
from server.persistence import Enrolments, Ledger, Roster, SiteStatus, StateDirectory
from tests.server.hospitals import consortium


class BreakingControl(FlowerControl):
    """A SuperLink's register of nodes in memory, which can be out of reach for one kind of command.

    A real one cannot be made to fail between two commands.
    """

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.nodes: list[Node] = []
        self.broken: set[str] = set()

    def list_nodes(self) -> list[Node]:
        """Those that were registered."""
        self._reach("list")
        return list(self.nodes)

    def register_node(self, public_key: Path, name: str) -> int:
        """Take one more."""
        self._reach("register")
        number = len(self.nodes) + 1
        self.nodes.append(Node(number, "registered", public_key_fingerprint(public_key), name))
        return number

    def unregister_node(self, node_id: int) -> None:
        """Refuse it from now on."""
        self._reach("unregister")
        self.nodes = [
            dataclasses.replace(node, status="unregistered") if node.node_id == node_id else node
            for node in self.nodes
        ]

    def _reach(self, command: str) -> None:
        if command in self.broken:
            raise DeployError("The SuperLink cannot be reached.")


@pytest.fixture
def control() -> BreakingControl:
    """One that works."""
    return BreakingControl()


def key(path: Path, name: str) -> NodeKey:
    return node_key(path / "keys" / name)


def withdrawn(path: Path, control: FlowerControl) -> Path:
    """A state directory in which alpha had a key and has withdrawn."""
    with StateDirectory.open(path / "state", url="") as state:
        enrol_site(control, state, consortium(), "alpha", key(path, "old").public)
        Roster(state).bar(["alpha"])
        Roster(state).withdraw(["alpha"])
        Enrolments(state).revoke("alpha", "withdrawn")
    return path / "state"


def test_a_key_revoked_behind_the_superlinks_back_is_refused_at_the_next_start(
    tmp_path: Path, control: BreakingControl
) -> None:
    """A run, a restored backup, or a request while the SuperLink was out of reach revoke a key in the state
    alone: `up` has it unregistered, and says so when it cannot.
    """  # noqa: D205 - one sentence
    path = withdrawn(tmp_path, control)
    assert [node.status for node in control.nodes] == ["registered"]
    control.broken = {"unregister"}
    with pytest.raises(DeployError):
        admit(control, path, {"alpha": key(tmp_path, "old")}, by="test")
    control.broken = set()
    found = admit(control, path, {"alpha": key(tmp_path, "old")}, by="test")
    assert found["alpha"].node_id is None and "for ever" in found["alpha"].refusal
    assert [node.status for node in control.nodes] == ["unregistered"]
    with StateDirectory.open(path, url="", writable=False) as state:
        assert Enrolments(state).to_unregister() == []


@pytest.mark.parametrize("broken", ["list", "register"])
def test_a_return_that_breaks_off_is_done_by_repeating_it(
    broken: str, tmp_path: Path, control: BreakingControl
) -> None:
    """A SuperLink out of reach at first changes nothing, later leaves the rest to the same command."""
    path, new = withdrawn(tmp_path, control), key(tmp_path, "new")
    with StateDirectory.open(path, url="") as state:

        def readmit(public: Path) -> int | None:
            return readmit_site(control, state, consortium(), "alpha", public).node_id

        control.broken = {broken}
        with pytest.raises(DeployError):
            readmit(new.public)
        valid = Enrolments(state).valid("alpha")
        if broken == "list":
            assert (Roster(state).get("alpha").status, valid) == (SiteStatus.WITHDRAWN, None)
        else:
            assert Roster(state).get("alpha").status is SiteStatus.ACTIVE
            assert valid is not None and valid.node_id is None
        control.broken = set()
        assert [readmit(new.public) for _ in range(3)] == [2, 2, 2]
        assert [(e.fingerprint, e.node_id) for e in Enrolments(state).all()] == [
            (key(tmp_path, "old").fingerprint, 1),
            (new.fingerprint, 2),
        ]
        assert len(Ledger(state).entries(["site-readmitted"])) == 1
        with pytest.raises(SiteError, match="used before"):
            readmit(key(tmp_path, "old").public)
        with pytest.raises(SiteError, match="not withdrawn"):
            readmit(key(tmp_path, "another").public)
        assert Enrolments(state).valid("alpha") == Enrolments(state).all()[1]


def test_a_site_that_never_left_is_not_readmitted(tmp_path: Path, control: BreakingControl) -> None:
    """The key that an active site was added with is no return that was broken off."""
    with StateDirectory.open(tmp_path / "state", url="") as state:
        enrol_site(control, state, consortium(), "beta", key(tmp_path, "beta").public)
        with pytest.raises(SiteError, match="used before"):
            readmit_site(control, state, consortium(), "beta", key(tmp_path, "beta").public)


def test_each_key_says_which_command_enrolled_it(tmp_path: Path, control: BreakingControl) -> None:
    """Of `up`, `site add` and `site readmit` each is noted with the keys it let in, and stays so."""
    path = withdrawn(tmp_path, control)
    with StateDirectory.open(path, url="") as state:
        readmit_site(control, state, consortium(), "alpha", key(tmp_path, "new").public)
    keys = {"alpha": key(tmp_path, "new"), "beta": key(tmp_path, "beta")}
    admit(control, path, keys, by="reconsent up")
    with StateDirectory.open(path, url="", writable=False) as state:
        assert [(e.site, e.enrolled_by) for e in Enrolments(state).all()] == [
            ("alpha", "reconsent site add"),
            ("alpha", "reconsent site readmit"),
            ("beta", "reconsent up"),
        ]
