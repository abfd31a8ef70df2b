"""Sites that are missing, come back, restart under a new id, or have the wrong key."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconsent.errors import RoundError
from server.bookkeeping import MAIN
from server.node_keys import fingerprint
from server.persistence import Enrolments, SiteStatus, StateDirectory, Withdrawals
from tests.server.comings import PATIENT, Comings, carry_out, enrol, enrolled, serving, sleeping
from tests.server.hospitals import consortium


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
        assert nodes.asked(50) == ["query.identify"]


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
    nodes = enrolled(tmp_path)
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
    nodes = enrolled(tmp_path)
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
    nodes = enrolled(tmp_path)

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
