"""Who comes, is slow to say who it is, restarts or changes its key while a run begins or goes on."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from server import handshake, membership
from server.bookkeeping import MAIN
from server.node_keys import fingerprint
from server.persistence import Enrolments, Ledger, SiteStatus, StateDirectory, Withdrawals
from server.persistence.ledger_entries import IDENTITY_REFUSED
from tests.server.comings import Comings, carry_out, enrol, enrolled, serving, sleeping
from tests.server.hospitals import SITES, consortium
from unlearning.withdrawal import WithdrawalState


def test_who_was_cut_off_when_a_run_began_takes_part_in_it(tmp_path: Path) -> None:
    """Nobody has noticed yet that the node is offline; it is asked again, and not waited for in vain."""
    nodes = Comings()
    nodes.cut_off.add(4)
    with serving(tmp_path, nodes, consortium(training={"join-seconds": 60.0})) as run:
        carry_out(run, "train", 2)
        assert ["delta" in record.sites for record in run.books.log.all(MAIN)] == [True, True]
        assert nodes.asked(4).count("query.identify") == 2
        (notice,) = run.texts("notice")
        assert "node_unavailable: no heartbeat" in notice


def test_nobody_is_waited_for_longer_than_sites_are(tmp_path: Path) -> None:
    """A node that does not say who it is holds a run up for the time to join, and no longer."""
    nodes = Comings()
    nodes.silent.add(4)
    with serving(tmp_path, nodes, consortium(training={"join-seconds": 0.5})) as run:
        began = time.monotonic()
        carry_out(run, "train", 1)
        assert "delta" not in run.coordinator.active_nodes().values()
        assert time.monotonic() - began < 60, "and not for as long as it may take to answer"
        assert run.texts("notice") == ["Going on without delta."]


def test_a_newcomer_that_takes_its_time_holds_no_round_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for once, for a moment; what it answers rounds later is heard, and it joins."""
    waited: list[float] = []
    monkeypatch.setattr(membership, "GREETING_SECONDS", 0.5)
    nodes = Comings()
    nodes.offline.add(4)
    nodes.silent.add(4)

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        time.sleep(seconds)

    def come(number: int) -> None:
        if number == 1:
            nodes.offline.clear()
            monkeypatch.setattr(handshake, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
        if number == 4:
            nodes.silent.clear()

    nodes.on_train = come
    config = consortium(training={"evaluate-every": 0, "join-seconds": 0.1})
    with serving(tmp_path, nodes, config) as run:
        carry_out(run, "train", 6)
        assert ["delta" in r.sites for r in run.books.log.all(MAIN)] == [False] * 4 + [True] * 2
        assert nodes.asked(4).count("query.identify") == 1, "it is not asked again while it may answer"
        assert run.texts("notice").count("Site delta has joined.") == 1
    assert 0 < sum(waited) < 0.6, "once, and not before every round"
    assert min(nodes.kept_seconds) > 3600, (
        "Flower keeps the answer until somebody looks, however long a round is"
    )


def test_a_node_that_goes_while_it_is_asked_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question may have ended with its process: the node is asked anew when it is back."""
    monkeypatch.setattr(membership, "GREETING_SECONDS", 0.2)
    nodes = Comings()
    nodes.offline.add(4)
    nodes.silent.add(4)
    steps = {
        1: nodes.offline.clear,
        2: lambda: nodes.offline.add(4),
        3: nodes.offline.clear,
        4: nodes.silent.clear,
    }
    nodes.on_train = lambda number: steps.get(number, lambda: None)()
    config = consortium(training={"evaluate-every": 0, "join-seconds": 0.1})
    with serving(tmp_path, nodes, config) as run:
        carry_out(run, "train", 6)
        assert nodes.asked(4).count("query.identify") == 2
        assert ["delta" in r.sites for r in run.books.log.all(MAIN)] == [False] * 4 + [True] * 2


def test_of_two_nodes_that_claim_one_site_the_first_to_answer_is_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that come together are taken in the order of the nodes, a late one after those before it."""
    monkeypatch.setattr(membership, "GREETING_SECONDS", 0.2)
    nodes = Comings()
    nodes.add(40, "delta")
    nodes.silent.add(4)
    nodes.on_train = lambda _: nodes.silent.clear()
    with serving(tmp_path, nodes, consortium(training={"evaluate-every": 0})) as run:
        carry_out(run, "train", 3)
        assert run.coordinator.active_nodes()[40] == "delta" and 4 not in run.coordinator.active_nodes()
        (notice,) = run.texts("notice")
        assert notice == "Node 4 is refused: it says it is site 'delta', which another node is already"


def test_restarted_without_keys_while_a_run_waits_for_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node refused because its former self was there is let in when that is gone, not at the next run."""
    nodes = Comings()
    nodes.offline.add(3)
    sleeping(
        monkeypatch,
        lambda: nodes.add(40, "delta"),
        lambda: nodes.offline.add(4),
        lambda: nodes.offline.discard(3),
    )
    with serving(tmp_path, nodes, consortium(training={"join-seconds": 60.0})) as run:
        carry_out(run, "train", 1)
        assert any("another node is already" in text for text in run.texts("notice"))
        assert {40: "delta", 3: "gamma"}.items() <= run.coordinator.active_nodes().items()
        assert set(run.books.log.all(MAIN)[0].sites) == set(SITES)
        assert not any("Going on without" in text for text in run.texts("notice"))


def test_a_key_replaced_while_a_run_waits_for_sites(tmp_path: Path) -> None:
    """The node with the new key is the site at once, and claims nothing that is another's."""
    nodes = enrolled(tmp_path)
    nodes.offline.add(3)

    def replace() -> None:
        with StateDirectory.open(tmp_path / "state", url="", exclusive=False) as state:
            nodes.add(44, "delta")
            Enrolments(state).revoke("delta", "replaced")
            Enrolments(state).enrol("delta", fingerprint(nodes.keys[44]), node_id=44)

    # Asked are 1, 2 and 4, whose key ends meanwhile, then 44, then 3.
    steps = [replace, lambda: nodes.offline.discard(3)]
    nodes.on_identify = lambda: steps.pop(0)() if steps else None
    with serving(tmp_path, nodes, consortium(training={"join-seconds": 60.0})) as run:
        carry_out(run, "train", 1)
        assert run.coordinator.active_nodes()[44] == "delta"
        (notice,) = run.texts("notice")
        assert notice.startswith("Node 4 is refused: its key"), (
            "and no node for one that claims another's site"
        )


def test_a_node_with_a_key_that_comes_while_a_run_waits_for_sites(tmp_path: Path) -> None:
    """Its key is known from when it is there, not from when the waiting began: it is let in at once."""
    nodes = enrolled(tmp_path)
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
    nodes = enrolled(tmp_path)

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


def test_a_node_restarted_between_two_looks_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody saw it offline, but the SuperLink says that it was activated anew."""
    nodes = Comings()
    nodes.silent.add(4)

    def restart() -> None:
        nodes.restart(4)
        nodes.silent.clear()

    sleeping(monkeypatch, lambda: None, restart)
    with serving(tmp_path, nodes, consortium(training={"join-seconds": 60.0})) as run:
        carry_out(run, "train", 1)
        assert nodes.asked(4).count("query.identify") == 2
        assert "delta" in run.books.log.all(MAIN)[0].sites and run.texts("notice") == []


def test_a_node_that_was_set_right_and_restarted_is_let_in(tmp_path: Path) -> None:
    """Its refusal stands no longer than it does; it is on record once, however often it is asked."""
    nodes = enrolled(tmp_path)
    nodes._nodes[4]["site"] = "gamma"

    def change(number: int) -> None:
        if number == 1:
            nodes.offline.add(1)
        if number == 2:
            nodes.offline.clear()
        if number == 4:
            nodes._nodes[4]["site"] = "delta"
            nodes.restart(4)

    nodes.on_train = change
    with serving(tmp_path, nodes, consortium(training={"evaluate-every": 0})) as run:
        carry_out(run, "train", 5)
        assert ["delta" in r.sites for r in run.books.log.all(MAIN)] == [False] * 4 + [True]
        assert nodes.asked(4).count("query.identify") > 2, "asked again when one was gone that was let in"
        refused = [e for e in Ledger(run.coordinator.state).entries() if e.kind == IDENTITY_REFUSED]
        assert len(refused) == 1


def test_a_node_that_goes_while_its_answer_is_read_is_not_let_in(tmp_path: Path) -> None:
    """Who said it is gone; when the node is back it is asked again."""
    nodes = Comings()
    nodes.goes_after_answering.add(4)
    nodes.on_train = lambda number: nodes.offline.clear() if number == 2 else None
    with serving(tmp_path, nodes, consortium(training={"evaluate-every": 0})) as run:
        carry_out(run, "train", 3)
        assert ["delta" in r.sites for r in run.books.log.all(MAIN)] == [False, False, True]
        assert nodes.asked(4)[:2] == ["query.identify"] * 2


def test_a_leaver_that_answers_later_than_the_others_does_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unlearning with a cooperating site waits for it as for any other, and does not fail for a second."""
    nodes = Comings()
    unlearning = {"method": "ga-l1-ft", "settings": {}, "rounds-fraction": 0.5}
    config = consortium(training={"evaluate-every": 0, "join-seconds": 60.0}, unlearning=unlearning)
    with serving(tmp_path, nodes, config) as run:
        carry_out(run, "train", 2)
        run.coordinator.withdrawals.file(
            ["delta"], reason="asked", requested_by="officer", cooperating=True, restrict=True
        )
    nodes.silent.add(4)
    sleeping(monkeypatch, lambda: None, nodes.silent.clear)
    with serving(tmp_path, nodes, config) as run:
        carry_out(run, "unlearn")
        assert run.books.roster.get("delta").status is SiteStatus.WITHDRAWN
        assert "train" in nodes.asked(4)[3:]


def test_a_leaver_that_stays_after_all_is_enrolled_like_any_other(tmp_path: Path) -> None:
    """Nobody compared what it told while it was leaving; once the withdrawal is cancelled it is asked."""
    nodes = Comings()
    config = consortium(training={"evaluate-every": 0})
    with serving(tmp_path, nodes, config) as run:
        carry_out(run, "train", 1)
        filed = run.coordinator.withdrawals.file(
            ["delta"], reason="asked", requested_by="officer", cooperating=True, restrict=True
        )
    nodes._nodes[4]["organ"] = "liver"

    def cancel(number: int) -> None:
        if number == 2:
            with StateDirectory.open(tmp_path / "state", url="", exclusive=False) as state:
                Withdrawals(state).advance(filed.id, WithdrawalState.CANCELLED, note="they stay")

    nodes.on_train = cancel
    with serving(tmp_path, nodes, config) as run:
        run.coordinator.meet()
        run.coordinator.train(4)
        assert [set(r.sites) for r in run.books.log.all(MAIN)][1:] == [{"alpha", "beta", "gamma"}] * 3
        assert any("organ 'liver'" in text for text in run.texts("notice"))


def test_the_first_keys_are_enrolled_while_a_round_runs(tmp_path: Path) -> None:
    """The round under way is not lost: whose key is enrolled is judged by it from then on."""
    nodes = Comings()
    nodes.on_train = lambda number: enrol(tmp_path, nodes, 1, 2, 3, 4) if number == 2 else None
    with serving(tmp_path, nodes, consortium(training={"evaluate-every": 0})) as run:
        carry_out(run, "train", 3)
        outcomes = [{o.outcome for o in r.sites.values()} for r in run.books.log.all(MAIN)]
        assert outcomes == [{"ok"}] * 3 and all(len(r.sites) == 4 for r in run.books.log.all(MAIN))
