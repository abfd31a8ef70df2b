"""What the server's exporter verifies of the ledger: what was added often, and all of it now and then."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from reconsent.errors import StateError
from reconsent.exposition import Samples
from server.metrics import StateCollector, catalogue, ledger
from server.metrics.runs import Runs
from server.persistence import PrivacyDesk, Roster, StateDirectory, Withdrawals
from server.persistence.ledger import Ledger
from server.persistence.own_checkpoints import CHECKPOINT_FILE
from server.persistence.state import DATABASE


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """With a ledger of eight entries."""
    with StateDirectory.open(tmp_path / "state") as opened:
        added(opened, 7)
    return tmp_path / "state"


def added(state: StateDirectory, number: int) -> None:
    """Add entries; the first of all is the ledger's own."""
    for place in range(number):
        Ledger(state).append("trial", {"place": place})


def verified(collector: StateCollector) -> Samples:
    """A scrape after the verification that is due."""
    collector.samples()
    collector.ledger.wait()
    found = collector.samples()
    # That one may have begun the next, which would take the place of what the test asks for then.
    collector.ledger.wait()
    return found


def altered(state: Path, number: int) -> None:
    """Change the content of an entry in the database, as only somebody with the file can."""
    with sqlite3.connect(state / DATABASE) as database:
        without_triggers(database)
        database.execute("UPDATE ledger SET content = content || ' ' WHERE number = ?", (number,))
    database.close()


def cut_off(state: Path, after: int) -> None:
    """Delete the entries after number ``after``, likewise."""
    with sqlite3.connect(state / DATABASE) as database:
        without_triggers(database)
        database.execute("DELETE FROM ledger WHERE number > ?", (after,))
    database.close()


def without_triggers(database: sqlite3.Connection) -> None:
    """Take away what keeps entries from being changed."""
    for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f'DROP TRIGGER "{trigger}"')


def test_the_whole_ledger_is_verified_at_the_start(state: Path, collector: StateCollector) -> None:
    """Every entry of a sound ledger is; one whose content was changed in the database is found."""
    samples = verified(collector)
    assert samples.value(ledger.VERIFIED) == 8
    assert samples.value(ledger.FAULTS) == 0
    assert samples.value(ledger.WHOLE_AT) == samples.value(ledger.VERIFIED_AT) is not None
    altered(state, 5)
    again = StateCollector(state)
    samples = verified(again)
    assert samples.value(ledger.FAULTS) == 1
    assert samples.value(ledger.VERIFIED) == 4
    again.close()


def test_in_between_only_what_was_added_is_verified(
    state: Path, collector: StateCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of an old entry is not seen by it, and is found by the next verification of all."""
    whole_at = verified(collector).value(ledger.WHOLE_AT)
    monkeypatch.setattr(ledger, "VERIFY_SECONDS", 0.0)
    altered(state, 3)
    with StateDirectory.open(state) as opened:
        added(opened, 4)
    samples = verified(collector)
    assert (samples.value(ledger.VERIFIED), samples.value(ledger.FAULTS)) == (12, 0)
    assert samples.value(ledger.WHOLE_AT) == whole_at
    monkeypatch.setattr(ledger, "WHOLE_SECONDS", 0.0)
    samples = verified(collector)
    assert (samples.value(ledger.VERIFIED), samples.value(ledger.FAULTS)) == (2, 1)
    assert (samples.value(ledger.WHOLE_AT) or 0) > (whole_at or 0)


def test_a_fault_among_what_was_added_stays_until_it_is_mended(
    state: Path, collector: StateCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found at once, and again by each that follows, since these are of all entries."""
    verified(collector)
    monkeypatch.setattr(ledger, "VERIFY_SECONDS", 0.0)
    with StateDirectory.open(state) as opened:
        added(opened, 4)
    altered(state, 10)
    for _ in range(2):
        samples = verified(collector)
        assert (samples.value(ledger.VERIFIED), samples.value(ledger.FAULTS)) == (9, 1)


def test_a_ledger_that_does_not_go_on_is_verified_whole(
    state: Path, collector: StateCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its last verified entry is another one than it was, nothing of what was found before counts."""
    verified(collector)
    monkeypatch.setattr(ledger, "VERIFY_SECONDS", 0.0)
    altered(state, 2)
    with sqlite3.connect(state / DATABASE) as database:
        database.execute("UPDATE ledger SET root = leaf WHERE number = 8")
    database.close()
    samples = verified(collector)
    assert (samples.value(ledger.VERIFIED), samples.value(ledger.FAULTS)) == (1, 1)


@pytest.mark.parametrize("left", [5, 0])
def test_a_ledger_that_was_cut_off_is_a_fault(
    state: Path, collector: StateCollector, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Fewer entries than were sound are one: at once, also if none are left, also once others follow."""
    assert verified(collector).value(ledger.FAULTS) == 0
    cut_off(state, left)
    for _ in range(2):
        samples = verified(collector)
        assert (samples.value(ledger.VERIFIED), samples.value(ledger.FAULTS)) == (left, 1)
        assert samples.value(ledger.VERIFIED_AT) is not None
    with StateDirectory.open(state) as opened:
        added(opened, 8)
    monkeypatch.setattr(ledger, "VERIFY_SECONDS", 0.0)
    assert verified(collector).value(ledger.FAULTS) == 1


def test_a_verification_that_breaks_is_a_fault(
    state: Path, collector: StateCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever keeps it from its end, but for a database that does not answer, is no silence."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Ledger, "audit_added", broken)
    samples = verified(collector)
    assert (samples.value(ledger.VERIFIED), samples.value(ledger.FAULTS)) == (0, 1)


def test_a_checkpoint_that_is_none_is_a_fault(
    state: Path, collector: StateCollector, caplog: pytest.LogCaptureFixture
) -> None:
    """The entries being sound, the exporter says what is wrong, as the command does."""
    (state / CHECKPOINT_FILE).write_bytes(b"{}")
    with caplog.at_level("WARNING", "flwr"):
        samples = verified(collector)
    assert (samples.value(ledger.VERIFIED), samples.value(ledger.FAULTS)) == (8, 1)
    assert f"{CHECKPOINT_FILE} holds no checkpoint" in caplog.text


def test_a_failed_scrape_forgets_no_finding(
    state: Path, collector: StateCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault is told while the database cannot be read, and after it; nothing is verified anew."""
    altered(state, 5)
    at = verified(collector).value(ledger.VERIFIED_AT)

    def lost(*_: object, **__: object) -> None:
        raise StateError("The connection was lost.", "Wait.")

    with monkeypatch.context() as patch:
        patch.setattr(Runs, "collect", lost)
        failed = collector.samples()
    for samples, readable in ((failed, 0), (collector.samples(), 1)):
        assert samples.value(catalogue.READABLE) == readable
        assert (samples.value(ledger.FAULTS), samples.value(ledger.VERIFIED_AT)) == (1, at)


def test_a_failed_scrape_does_not_wait_for_a_verification(
    collector: StateCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends while the verification goes on, whose finding is told afterwards."""
    begun, go_on = threading.Event(), threading.Event()
    audit_added = Ledger.audit_added

    def slow(*args: Any, **named: Any) -> bool:
        begun.set()
        assert go_on.wait(30)
        return audit_added(*args, **named)

    def lost(*_: object, **__: object) -> None:
        raise StateError("The connection was lost.", "Wait.")

    monkeypatch.setattr(Ledger, "audit_added", slow)
    collector.samples()
    assert begun.wait(30)
    with monkeypatch.context() as patch:
        patch.setattr(Runs, "collect", lost)
        assert collector.samples().value(catalogue.READABLE) == 0
    assert collector.samples().value(ledger.FAULTS) is None, "it is still under way"
    go_on.set()
    collector.ledger.wait()
    samples = collector.samples()
    assert (samples.value(ledger.VERIFIED), samples.value(ledger.FAULTS)) == (8, 0)


def test_another_ledger_in_the_place_of_the_database_is_none(state: Path, collector: StateCollector) -> None:
    """A shorter one in another file is sound with its own checkpoint, as a restored backup is, else not."""
    with StateDirectory.open(state.parent / "other") as opened:
        added(opened, 2)
    assert verified(collector).value(ledger.VERIFIED) == 8
    kept = (state / CHECKPOINT_FILE).read_bytes()
    for name in (CHECKPOINT_FILE, DATABASE):
        (state.parent / "other" / name).replace(state / name)
    samples = verified(collector)
    assert (samples.value(ledger.VERIFIED), samples.value(ledger.FAULTS)) == (3, 0)

    (state / CHECKPOINT_FILE).write_bytes(kept)
    fresh = StateCollector(state)
    try:
        assert verified(fresh).value(ledger.FAULTS) == 1
    finally:
        fresh.close()


def test_an_exporter_that_never_saw_the_end_finds_it_cut_off(state: Path, collector: StateCollector) -> None:
    """By the checkpoint beside the ledger; and a register that the ledger contradicts, by its entries."""
    cut_off(state, 6)
    samples = verified(collector)
    assert (samples.value(ledger.VERIFIED), samples.value(ledger.FAULTS)) == (6, 1)


def test_an_altered_act_is_a_fault(state: Path, collector: StateCollector) -> None:
    """The entries being sound, what they speak of is compared too."""
    with StateDirectory.open(state) as opened:
        for number, site in enumerate("ab"):
            Roster(opened).enrol(site, number, "knee", 1, round=1)
        record = Withdrawals(opened).file(["a"], reason="asked", requested_by="dpo")
        PrivacyDesk(opened, "officer").note(record.id, "as it was")
    assert verified(collector).value(ledger.FAULTS) == 0
    with sqlite3.connect(state / DATABASE) as database:
        without_triggers(database)
        database.execute("""UPDATE withdrawal_acts SET body = '{"text": "another"}'""")
    database.close()
    collector.ledger._begun = -ledger.VERIFY_SECONDS
    samples = verified(collector)
    assert (samples.value(ledger.VERIFIED), samples.value(ledger.FAULTS)) == (12, 1)


def test_a_replaced_key_is_no_fault(
    state: Path, collector: StateCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries signed by a key that the ledger itself put in the place of the first one are sound."""
    verified(collector)
    monkeypatch.setattr(ledger, "VERIFY_SECONDS", 0.0)
    with StateDirectory.open(state) as opened:
        Ledger(opened).replace_key()
        added(opened, 1)
    for whole_seconds in (ledger.WHOLE_SECONDS, 0.0):
        monkeypatch.setattr(ledger, "WHOLE_SECONDS", whole_seconds)
        samples = verified(collector)
        assert (samples.value(ledger.VERIFIED), samples.value(ledger.FAULTS)) == (10, 0)


def test_a_database_that_does_not_answer_says_nothing_of_the_ledger(
    collector: StateCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last finding stays, and no fault is told."""
    told = (ledger.VERIFIED_AT, ledger.WHOLE_AT, ledger.FAULTS)
    samples = verified(collector)
    before = [samples.value(metric) for metric in told]

    def lost(*_: object, **__: object) -> None:
        raise StateError("The connection was lost.", "Wait.")

    monkeypatch.setattr(Ledger, "audit_added", lost)
    monkeypatch.setattr(ledger, "VERIFY_SECONDS", 0.0)
    samples = verified(collector)
    assert [samples.value(metric) for metric in told] == before
    assert before[2] == 0
