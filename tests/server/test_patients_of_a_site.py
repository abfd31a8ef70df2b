"""Patients withdraw and their site stays: a whole life on a local grid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reconsent.errors import WithdrawalError
from server.bookkeeping import MAIN, ORACLE
from server.certifying import draft
from server.persistence import SiteStatus, VersionStatus
from server.persistence.verification import verify_ledger
from server.unlearning_run import UnlearningRun
from strategies import messages as msg
from strategies.local_grid import LocalGrid
from tests.server.hospitals import SITES, Run, consortium, grid, opened
from tests.server.test_certifying import SIGNERS
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


@pytest.mark.parametrize("when", ["before", "_start", "_check_wanted"])
def test_the_whole_site_withdraws_meanwhile(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the patients' part is done their withdrawal ends without a model; the site's takes all out."""
    with opened(tmp_path, consortium(unlearning=ASCENT), nodes()) as run:
        register = run.coordinator.withdrawals
        run.coordinator.meet()
        run.coordinator.initialise()
        run.coordinator.train(6)
        register.file(
            ["delta"],
            reason="asked",
            requested_by="dpo",
            cooperating=True,
            details=RequestDetails(scope=PATIENTS_ONLY, patients=2),
        )

        def leave(*_: object) -> None:
            register.file(["delta"], reason="leaves", requested_by="dpo", restrict=True, cooperating=True)

        if when == "before":
            leave()
        else:
            real = getattr(UnlearningRun, when)
            done: list[bool] = []

            def then(self: UnlearningRun, *given: Any) -> Any:
                if not done:
                    done.append(True)
                    leave()
                return real(self, *given)

            monkeypatch.setattr(UnlearningRun, when, then)
        for record in run.coordinator.withdrawing.due():
            run.coordinator.withdrawing.go_on(record)
        for record in run.coordinator.withdrawing.due():
            run.coordinator.withdrawing.go_on(record)
        patients, site = register.all()
        assert patients.state is site.state is WithdrawalState.COMPLETED
        finished = when == "_check_wanted"
        assert ("whole site" in register.events(patients.id)[-1].note) is not finished
        marks = [set(v.forgotten) for v in run.books.registry.all(MAIN) if v.kind == "unlearned"]
        assert marks == [*([set(patients.marks)] if finished else []), {"delta", *patients.marks * finished}]
        assert not run.books.version(MAIN, "unlearned").depends_on("delta")
        assert not run.coordinator.cache.shares("delta")


def test_requests_do_not_hide_each_other(tmp_path: Path) -> None:
    """Patients' requests are one only under one number; none stands in the way of the whole site's."""
    with opened(tmp_path, consortium(), nodes()) as run:
        run.coordinator.meet()
        register = run.coordinator.withdrawals

        def ask(number: str | None = None) -> str:
            asked = RequestDetails(scope=PATIENTS_ONLY, patients=2, request_id=number)
            return register.file(["delta"], reason="a", requested_by="b", details=asked).id

        first, second, third = ask("n-1"), ask("n-2"), ask()
        assert ask("n-1") == first
        assert len({first, second, third, ask()}) == 4
        whole = register.file(["delta"], reason="a", requested_by="b")
        assert whole.id not in (first, second, third)
        with pytest.raises(WithdrawalError, match="withdrawn already"):
            ask("n-3")
