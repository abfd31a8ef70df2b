"""Patients withdraw and their site stays: a whole life on a local grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reconsent.errors import WithdrawalError
from server.bookkeeping import MAIN, ORACLE
from server.certifying import draft
from server.persistence import SiteStatus, VersionStatus
from server.persistence.verification import verify_ledger
from server.restoring import reapply_erasures
from server.unlearning_run import UnlearningRun
from strategies import messages as msg
from strategies.local_grid import LocalGrid
from tests.server.hospitals import SITES, Run, consortium, grid, opened
from tests.server.test_certifying import SIGNERS
from unlearning.key_store import Erasure
from unlearning.request import PATIENTS_ONLY, RequestDetails
from unlearning.withdrawal import WithdrawalState

LEAVE = ({"sites": ("delta",), "patients": ("p-3", "p-5")},)
ASCENT = {"method": "ga-l1-ft", "settings": {"gamma": 0.0, "forget-weight": 0.3, "forget-rate": 0.3}}


def config(**changes: Any) -> Any:
    """Two patients of delta withdraw at the end of the training."""
    return consortium(withdrawals=LEAVE, unlearning=ASCENT, **changes)


def nodes() -> LocalGrid:
    """The usual sites; the leaving patients moved delta's centre."""
    return grid(delta={"leaving": 2.0})


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, LocalGrid]]:
    """A run from its training to its oracle."""
    sites = nodes()
    with opened(tmp_path_factory.mktemp("patients"), config(continue_rounds=1), sites) as run:
        run.coordinator.run()
        yield run, sites


def test_the_site_stays(lived: tuple[Run, LocalGrid]) -> None:
    """It is in everybody's round, in what is trained afterwards, and in the oracle; it is never barred."""
    run, _ = lived
    rounds = [(r.kind, set(r.sites)) for r in run.books.log.all(MAIN)]
    assert rounds[6:] == [("retain", {"delta"}), ("retain", set(SITES)), ("train", set(SITES))]
    assert all(set(r.sites) == set(SITES) for r in run.books.log.all(ORACLE))
    assert run.books.roster.get("delta").status is SiteStatus.ACTIVE
    (record,) = run.coordinator.withdrawals.all()
    assert (record.state, record.scope, record.patients) == (WithdrawalState.COMPLETED, PATIENTS_ONLY, 2)


def test_only_that_site_is_told_and_from_then_on(lived: tuple[Run, LocalGrid]) -> None:
    """Every message to it since the restriction says that patients left, none before, and none to others."""
    run, sites = lived
    (restricted,) = [text for text in run.texts("withdrawal") if ": restricted" in text]
    since = run.sent_at[restricted]
    for number, message in enumerate(sites.sent):
        if message.metadata.message_type not in (msg.TRAIN, msg.EVALUATE):
            continue
        told = msg.config_of(message)
        late = number >= since and message.metadata.dst_node_id == 4
        assert bool(told.get(msg.PATIENTS_LEFT)) is late
        if told.get(msg.FORGET_SET):
            assert late and told[msg.TASK] == msg.ASCEND


def test_the_unlearned_model_is_nearer_to_the_oracle(lived: tuple[Run, LocalGrid]) -> None:
    """On quadratic losses G_U lies nearer than G to the model trained without those patients."""
    run, _ = lived
    books = run.books
    original = next(v for v in books.registry.all(MAIN) if (v.kind, v.round) == ("train", 6))
    before = books.registry.load(original.id, force=True)["theta"]
    oracle, after = run.theta(ORACLE), run.theta(MAIN, "unlearned")
    assert np.linalg.norm(after - oracle) < np.linalg.norm(before - oracle)


def test_what_holds_the_patients_is_revoked_and_erased(lived: tuple[Run, LocalGrid]) -> None:
    """Versions up to the unlearned one, and the site's contributions up to it; not what came after."""
    run, _ = lived
    (record,) = run.coordinator.withdrawals.all()
    for version in run.books.registry.all(MAIN):
        usable = version.kind in ("initial", "unlearned") or version.round > 8
        assert (version.status is not VersionStatus.REVOKED) == usable, (version.kind, version.round)
    unlearned = next(v for v in run.books.registry.all(MAIN) if v.kind == "unlearned")
    assert unlearned.forgotten == record.marks
    assert unlearned.depends_on("delta")
    cache = run.coordinator.cache
    assert set(cache.shares("delta")) == {9}
    assert set(cache.shares("alpha")) == {*range(1, 7), 8, 9}
    assert verify_ledger(run.coordinator.state).problem == ""


def test_there_is_no_certificate(lived: tuple[Run, LocalGrid]) -> None:
    """A certificate speaks of a site that left; this one did not."""
    run, _ = lived
    (record,) = run.coordinator.withdrawals.all()
    with pytest.raises(WithdrawalError, match="patients of delta"):
        draft(run.coordinator.state, config(), record, signers=SIGNERS, secret=b"s" * 32)


def test_the_whole_site_may_withdraw_afterwards(tmp_path: Path) -> None:
    """Then nothing that depends on it is left: what its patients' withdrawal spared is revoked as well."""
    plan = config(continue_rounds=0)
    with opened(tmp_path, plan, nodes()) as run:
        run.coordinator.run()
    later = consortium(unlearning={"method": "retain-ft", "settings": {}})
    with opened(tmp_path, later, nodes()) as run:
        run.coordinator.meet()
        assert run.coordinator.withdraw(["delta"]).state is WithdrawalState.COMPLETED
        usable = [v for v in run.books.registry.all(MAIN) if v.status is not VersionStatus.REVOKED]
        assert usable and not any(v.depends_on("delta") for v in usable)
        assert run.books.roster.get("delta").status is SiteStatus.WITHDRAWN


def test_going_back_before_the_site_joined_is_exact_afterwards(tmp_path: Path) -> None:
    """The contributions of before its patients' withdrawal are erased, and yet it was in the models then."""
    longer = {"training": {"rounds": 12}, "contributions": {"anchors": [0.67]}}
    with trained(tmp_path, changes=longer) as run:
        ask(run)
        carry_out(run)
        run.coordinator.train(12)
        kept = run.books.kept_models()
        assert min(run.coordinator.cache.shares("delta")) == 9
        assert 8 in kept and kept[8].depends_on("delta")
    back = consortium(**longer, unlearning={"method": "rollback", "settings": {}})
    with opened(tmp_path, back, nodes()) as run:
        run.coordinator.meet()
        run.coordinator.withdraw(["delta"])
        lost = [r for r in run.books.log.all(MAIN) if r.kind == "retain" and r.round > 14]
        assert len(lost) == 14, "all there were, those of the patients' unlearning too"
        initial = run.books.registry.initial(MAIN)
        assert initial is not None
        version, parents = run.books.version(MAIN, "unlearned"), set()
        while version.parent is not None:
            version = run.books.registry.get(version.parent)
            parents.add(version.depends_on("delta"))
        assert parents == {False}


def ask(run: Run, *, number: str | None = None, patients: int = 2, site: str = "delta") -> str:
    """A request of patients whose site stays; its id."""
    asked = RequestDetails(scope=PATIENTS_ONLY, patients=patients, request_id=number)
    register = run.coordinator.withdrawals
    found = register.file(
        [site], reason="they ask", requested_by="dpo", cooperating=True, details=asked, restrict=True
    )
    return found.id


def leave(run: Run) -> str:
    """The whole site asks; its id."""
    register = run.coordinator.withdrawals
    return register.file(["delta"], reason="leaves", requested_by="dpo", restrict=True, cooperating=True).id


def carry_out(run: Run) -> None:
    """What a run does between its rounds."""
    while due := run.coordinator.withdrawing.due():
        run.coordinator.withdrawing.go_on(due[0])


@contextmanager
def trained(path: Path, **how: Any) -> Iterator[Run]:
    """A consortium after six rounds, before anybody asks."""
    own = {"unlearning": ASCENT, **how.pop("changes", {})}
    with opened(path, consortium(**own), how.pop("sites", None) or nodes(), **how) as run:
        run.coordinator.meet()
        run.coordinator.initialise()
        run.coordinator.train(6)
        yield run


@pytest.mark.parametrize("when", ["before", "_start", "_check_wanted"])
def test_the_whole_site_withdraws_meanwhile(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before their part is done their request waits, and ends with that of the site, which takes all out."""
    with trained(tmp_path) as run:
        register = run.coordinator.withdrawals
        ask(run)
        if when == "before":
            leave(run)
        else:
            real = getattr(UnlearningRun, when)
            done: list[bool] = []

            def then(self: UnlearningRun, *given: Any) -> Any:
                if not done:
                    done.append(True)
                    leave(run)
                return real(self, *given)

            monkeypatch.setattr(UnlearningRun, when, then)
        carry_out(run)
        patients, site = register.all()
        assert patients.state is site.state is WithdrawalState.COMPLETED
        finished = when == "_check_wanted"
        assert ("whole site" in register.events(patients.id)[-1].note) is not finished
        marks = [set(v.forgotten) for v in run.books.registry.all(MAIN) if v.kind == "unlearned"]
        assert marks == [*([set(patients.marks)] if finished else []), {"delta", *patients.marks * finished}]
        assert not run.books.version(MAIN, "unlearned").depends_on("delta")
        assert not run.coordinator.cache.shares("delta")
        if not finished:
            assert site.closed_at is not None and patients.closed_at is not None
            assert site.closed_at <= patients.closed_at


@pytest.mark.parametrize("fate", [WithdrawalState.CANCELLED, WithdrawalState.LEGAL_HOLD])
@pytest.mark.parametrize("begun", [False, True])
def test_what_becomes_of_patients_whose_site_thinks_better_of_it(
    begun: bool, fate: WithdrawalState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait; if the site stays after all they are unlearned, and if it is on hold they wait on."""
    with trained(tmp_path) as run:
        register = run.coordinator.withdrawals
        patients = ask(run)
        if begun:
            real = UnlearningRun._start

            def then(self: UnlearningRun, *given: Any) -> Any:
                checkpoint = real(self, *given)
                leave(run)
                return checkpoint

            monkeypatch.setattr(UnlearningRun, "_start", then)
            run.coordinator.withdrawing.go_on(register.get(patients))
            monkeypatch.undo()
        else:
            leave(run)
            run.coordinator.withdrawing.go_on(register.get(patients))
        assert not register.get(patients).state.closed
        site = register.all()[-1].id
        register.advance(site, fate, note="thought better of it")
    with opened(tmp_path, consortium(unlearning=ASCENT), nodes()) as run:
        run.coordinator.meet()
        carry_out(run)
        found = run.coordinator.withdrawals.get(patients)
        usable = [v for v in run.books.registry.all(MAIN) if v.status is not VersionStatus.REVOKED]
        if fate is WithdrawalState.CANCELLED:
            assert found.state is WithdrawalState.COMPLETED
            assert [v.kind for v in usable] == ["initial", "unlearned"]
            assert set(found.marks) <= set(usable[-1].forgotten)
        else:
            assert not found.state.closed
            assert [v.round for v in usable if v.kind == "train"] == list(range(1, 7))


def deployed(path: Path, method: str, **node: Any) -> Any:
    """A consortium after six rounds that is no simulation; ``node`` changes the configuration of delta's."""
    sites = grid(delta={"leaving": 2.0, **node})
    changes = {"unlearning": {"method": method, "settings": {}}}
    return trained(path, simulated=False, changes=changes, sites=sites)


def test_a_site_that_leaves_all_of_them_out(tmp_path: Path) -> None:
    """Of two requests at once as many as of both; then each is carried out."""
    with deployed(tmp_path, "retain-ft", **{"left-out": 5}) as run:
        run.coordinator.membership._simulated = True  # LocalGrid has no node keys to wait for
        asked = [ask(run, number="n-1"), ask(run, number="n-2", patients=3)]
        carry_out(run)
        for id_ in asked:
            record, *_, last = (
                run.coordinator.withdrawals.get(id_),
                *run.coordinator.withdrawals.events(id_),
            )
            assert record.state is WithdrawalState.COMPLETED, last.note


@pytest.mark.parametrize(
    ("cause", "said"), [("method", "as a whole"), ("site", "leaves out 0"), ("silent", "No usable reply")]
)
def test_what_one_site_must_see_to_stops_nobody(cause: str, said: str, tmp_path: Path) -> None:
    """A method that cannot, a site that leaves nobody out or says nothing: the request is left aside, and
    training goes on from the model there was.
    """  # noqa: D205 - one sentence
    method = "cached-ascent" if cause == "method" else "retain-ft"
    with deployed(tmp_path, method) as run:
        run.coordinator.membership._simulated = True  # LocalGrid has no node keys to wait for
        if cause == "silent":
            run.coordinator.grid._nodes[4]["fault"] = "train"  # type: ignore[attr-defined]
        patients = ask(run)
        before = run.books.version(MAIN, "train").id
        carry_out(run)
        found = run.coordinator.withdrawals.get(patients)
        assert found.state is WithdrawalState.FAILED
        last = run.coordinator.withdrawals.events(patients)[-1].note
        assert said in last
        assert [text for text in run.texts("notice") if "left aside" in text]
        run.coordinator.train(7)
        assert run.books.version(MAIN, "train").parent == before
        # Before the last round that it has to answer in, one is done without it, and dropped.
        assert run.books.log.count(MAIN, "retain") == (cause == "silent")


def test_those_of_two_requests_are_not_one_and_the_same(tmp_path: Path) -> None:
    """A site that leaves out as many as one of them asks for has not done what both ask for."""
    with deployed(tmp_path, "retain-ft", **{"left-out": 3}) as run:
        run.coordinator.membership._simulated = True
        first = ask(run, number="n-1")
        ask(run, number="n-2", patients=3)
        carry_out(run)
        assert "5 patients of delta have withdrawn" in run.coordinator.withdrawals.events(first)[-1].note


def test_a_restored_backup_lets_the_site_stay(tmp_path: Path) -> None:
    """Their withdrawal is filed anew, the site's contributions go, and neither site nor key is barred."""
    with trained(tmp_path) as run:
        state, cache = run.coordinator.state, run.coordinator.cache
        assert cache.shares("delta")
        erased = Erasure("delta", "W-20261101-abcdef", "2026-11-01T00:00:00+00:00", 2)
        (found,) = reapply_erasures(state, run.coordinator.safekeeping.store, [erased])
        record = run.coordinator.withdrawals.get(found.withdrawal)
        assert (record.scope, record.patients) == (PATIENTS_ONLY, 2)
        assert run.books.roster.get("delta").status is SiteStatus.ACTIVE
        assert not cache.shares("delta")


def test_requests_do_not_hide_each_other(tmp_path: Path) -> None:
    """Patients' requests are one only under one number; none stands in the way of the whole site's."""
    with opened(tmp_path, consortium(), nodes()) as run:
        run.coordinator.meet()
        register = run.coordinator.withdrawals
        first, second, third = ask(run, number="n-1"), ask(run, number="n-2"), ask(run)
        assert ask(run, number="n-1") == first
        assert len({first, second, third, ask(run)}) == 4
        with pytest.raises(WithdrawalError, match="number of its own"):
            ask(run, number="n-1", patients=3)
        with pytest.raises(WithdrawalError, match="number of its own"):
            details = RequestDetails(request_id="n-1")
            register.file(["delta"], reason="all", requested_by="dpo", details=details)
        with pytest.raises(WithdrawalError, match="by one request"):
            asked = RequestDetails(scope=PATIENTS_ONLY, patients=2)
            register.file(["gamma", "delta"], reason="both", requested_by="dpo", details=asked)
        assert leave(run) not in (first, second, third)
        with pytest.raises(WithdrawalError, match="withdrawn already"):
            ask(run, number="n-3")
