"""The register compared with the ledger: what was altered, dropped or added is found and named first."""

# ruff: noqa: S608 - the statements are this file's own
from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.orm import Session

from server.persistence import Ledger, PrivacyDesk, Roster, StateDirectory, Withdrawals, ledger_entries
from server.persistence.register_check import RegisterCheck, check_register
from server.persistence.schema import alembic_config
from unlearning.intake import Channel, Intake
from unlearning.request import Attachment, Ground, RequestDetails
from unlearning.withdrawal import WithdrawalState as S

EARLY = dt.datetime(2026, 1, 31, 9, 30, tzinfo=dt.UTC)


def fill(state: StateDirectory) -> list[str]:
    """Two withdrawals about which everything is said that can be."""
    register = Withdrawals(state, now=lambda: EARLY)
    desk = PrivacyDesk(state, "officer", now=lambda: EARLY)
    for node, site in enumerate(("east", "north", "south")):
        Roster(state).enrol(site, node, "knee", 10, round=1)
    said = RequestDetails(ground=Ground.DATA_SUBJECTS, scope="patients", patients=7, owner="Ada")
    first = register.file(["north"], reason="private", requested_by="dpo", restrict=True, details=said).id
    desk.note(first, "call me back")
    desk.attach(first, Attachment("letter.pdf", "ab" * 32, 10))
    desk.extend(first, "many sites")
    desk.correct(first, Intake(channel=Channel.PHONE))
    desk.assign(first, "Grace")
    desk.grant_in_part(first, "Art. 17(3)(d)")
    second = register.file(["east"], reason="consent", requested_by="dpo").id
    desk.hold(second, "trial", dt.date(2028, 1, 1))
    desk.refuse(second, "unfounded")
    return [first, second]


def checked(state: StateDirectory) -> RegisterCheck:
    """What the comparison comes to."""
    with state.reading() as session:
        return check_register(session)


def tampered(state: StateDirectory, *statements: str) -> RegisterCheck:
    """What it comes to after rows were changed as by somebody who has the database; nothing of it stays."""
    with state.engine.connect() as connection:
        for table in ("withdrawal_acts", "withdrawal_events", "ledger"):
            for change in ("update", "delete"):
                connection.exec_driver_sql(f"DROP TRIGGER {table}_no_{change}")
        for statement in statements:
            connection.execute(text(statement))
        with Session(connection) as session:
            found = check_register(session)
        connection.rollback()
    assert checked(state).sound
    return found


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateDirectory]:
    """A state that no test changes."""
    with StateDirectory.open(tmp_path_factory.mktemp("filled") / "state", url="") as opened:
        fill(opened)
        yield opened


def written_by_former_release(state: StateDirectory) -> None:
    """Fill a state as the release before did, and upgrade it: no entry commits, no row has a salt."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ledger_entries, "committed", lambda *_: {})
        fill(state)
    with state.engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0008")
        command.upgrade(alembic_config(connection), "head")


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateDirectory]:
    """A state of the former release that no test changes."""
    with StateDirectory.open(tmp_path_factory.mktemp("former") / "state", url="") as opened:
        written_by_former_release(opened)
        yield opened


def test_an_untouched_register_holds(state: StateDirectory) -> None:
    """Every step and act is compared, and nothing is found; also where nobody has withdrawn."""
    assert checked(state) == RegisterCheck()
    fill(state)
    found = checked(state)
    assert (found.sound, found.compared, found.before, found.uncovered, found.erased) == (True, 12, 0, 0, 0)


def test_what_is_written_meanwhile_is_no_finding(state: StateDirectory) -> None:
    """All queries of one reading see one moment, on each database: a note beside it is in none of them."""
    first, _ = fill(state)
    with state.reading() as session:
        before = Ledger(state).size(session=session)
        PrivacyDesk(state, "officer", now=lambda: EARLY).note(first, "in between")
        found = check_register(session)
        assert (found.problem, found.compared, Ledger(state).size(session=session)) == ("", 12, before)
    assert checked(state).compared == 13


def test_entries_tell_nothing_of_the_texts(state: StateDirectory) -> None:
    """Two acts that say the same have different commitments, and neither text nor salt is in an entry."""
    first, _ = fill(state)
    PrivacyDesk(state, "officer", now=lambda: EARLY).note(first, "call me back")
    entries = Ledger(state).entries(["withdrawal-act"])
    notes = [entry.body["commitment"] for entry in entries if entry.body["act"] == "note"]
    assert len(set(notes)) == 2
    everything = json.dumps([entry.body for entry in Ledger(state).entries()])
    with state.reading() as session:
        salts = [salt for (salt,) in session.execute(text("SELECT salt FROM withdrawal_acts"))]
    assert all(len(salt) == 64 and salt not in everything for salt in salts)
    assert not [word for word in ("private", "call me", "officer", "Ada", "letter") if word in everything]


def acts(kind: str) -> str:
    """A condition on the first act of a kind."""
    return f"number = (SELECT MIN(number) FROM withdrawal_acts WHERE kind = '{kind}')"


TAMPERING = {
    "reason-of-a-refusal": ("UPDATE withdrawal_events SET note = 'x' WHERE new_state = 'refused'",
                            "'refused' of withdrawal .* was altered"),
    "note": (f"UPDATE withdrawal_acts SET body = '{{\"text\": \"x\"}}' WHERE {acts('note')}",
             "act 'note' of .* was altered"),
    "document": (f"UPDATE withdrawal_acts SET actor = 'me' WHERE {acts('attachment')}",
                 "act 'attachment' of .* was altered"),
    "time": (f"UPDATE withdrawal_acts SET at = '2026-01-01 00:00' WHERE {acts('note')}",
             "'note' of .* was altered"),
    "dropped-act": (f"DELETE FROM withdrawal_acts WHERE {acts('note')}", "'note' of .* was dropped"),
    "dropped-step": ("DELETE FROM withdrawal_events WHERE new_state = 'restricted'",
                     "step to 'restricted' of .* was dropped"),
    "salt-gone": (f"UPDATE withdrawal_acts SET salt = NULL WHERE {acts('note')}", "lost the salt"),
    "added-act": ("INSERT INTO withdrawal_acts (number, withdrawal, at, actor, kind, body) SELECT 99, id, "
                  "filed_at, 'me', 'note', '{\"text\": \"x\"}' FROM withdrawals WHERE state = 'refused'",
                  "an act of .* was added .*row 99"),
    "added-with-a-salt": ("INSERT INTO withdrawal_events (number, withdrawal, at, actor, old_state, "
                          "new_state, note, salt) SELECT 99, withdrawal, at, actor, old_state, new_state, "
                          "note, salt FROM withdrawal_events WHERE new_state = 'refused'",
                          "a step of .* was added"),
    "state": ("UPDATE withdrawals SET state = 'cancelled' WHERE state = 'refused'", "its state"),
    "ground": ("UPDATE withdrawals SET ground = 'regulator' WHERE in_part", "its ground"),
    "scope": ("UPDATE withdrawals SET scope = 'site' WHERE in_part", "its scope"),
    "patients": ("UPDATE withdrawals SET patients = 8 WHERE in_part", "step to 'received' of .* was altered"),
    "reason": ("UPDATE withdrawals SET reason = 'x' WHERE in_part", "step to 'received' of .* was altered"),
    "received": ("UPDATE withdrawals SET received_at = '2026-01-30 09:30:00' WHERE in_part", "its time of"),
    "deadline": ("UPDATE withdrawals SET due_at = '2026-05-30 09:30:00' WHERE in_part", "its deadline"),
    "extension": ("UPDATE withdrawals SET extended_at = NULL WHERE in_part", "its extension"),
    "owner": ("UPDATE withdrawals SET owner = 'me' WHERE in_part", "its owner"),
    "intake": ("UPDATE withdrawals SET channel = 'letter' WHERE in_part", "its intake"),
    "in-part": ("UPDATE withdrawals SET in_part = FALSE WHERE in_part", "its grant in part"),
    "filed": ("UPDATE withdrawals SET filed_at = '2026-01-30 09:30:00' WHERE in_part", "its time of filing"),
    "filed-gone": ("UPDATE withdrawals SET filed_at = NULL WHERE in_part", "its time of filing"),
    "restricted": ("UPDATE withdrawals SET restricted_at = '2026-01-30 09:30:00' WHERE in_part",
                   "its time of the restriction"),
    "restriction-gone": ("UPDATE withdrawals SET restricted_at = NULL WHERE in_part",
                         "its time of the restriction"),
    "closed": ("UPDATE withdrawals SET closed_at = '2026-01-01 00:00:00' WHERE state = 'refused'",
               "its time of closing"),
}  # fmt: skip


@pytest.mark.parametrize("way", TAMPERING)
def test_tampering_is_found_and_named(way: str, filled: StateDirectory) -> None:
    """Whatever is changed in the rows, it is named."""
    statement, problem = TAMPERING[way]
    found = tampered(filled, statement)
    assert not found.sound
    assert re.search(problem, found.problem), found.problem
    assert (found.entry is None) == ("added" in way)


def test_the_first_of_several_is_named(filled: StateDirectory) -> None:
    """In the order of the ledger."""
    found = tampered(
        filled, TAMPERING["reason-of-a-refusal"][0], f"DELETE FROM withdrawal_acts WHERE {acts('extended')}"
    )
    entry = Ledger(filled).entries()[(found.entry or 0) - 1]
    assert entry.body["act"] == "extended"
    assert "was dropped" in found.problem


@pytest.mark.parametrize("salt", ["salt", "NULL"])
def test_an_erased_text_leaves_everything_whole(salt: str, filled: StateDirectory) -> None:
    """A text that had to be erased, with its salt or without, is counted and is no fault."""
    found = tampered(
        filled,
        f"UPDATE withdrawal_acts SET body = '{{}}', salt = {salt} WHERE {acts('note')}",
        f"UPDATE withdrawal_events SET note = '', salt = {salt} WHERE new_state = 'refused'",
    )
    assert (found.sound, found.compared, found.erased) == (True, 10, 2)


UNREADABLE = {
    "salt": (f"UPDATE withdrawal_acts SET salt = 'zz' WHERE {acts('note')}", "act 'note' of .* was altered"),
    "body": (f"UPDATE withdrawal_acts SET body = '7' WHERE {acts('note')}", "act 'note' of .* was altered"),
    "intake": (f"UPDATE withdrawal_acts SET body = '{{\"channel\": \"x\"}}' WHERE {acts('intake')}",
               "act 'intake' of .* was altered"),
    "channel": ("UPDATE withdrawals SET channel = 'bogus' WHERE in_part", "W-.* was altered .*bogus"),
    "moment": (f"UPDATE withdrawal_acts SET at = 'bogus' WHERE {acts('note')}", "cannot be read"),
    "json": (f"UPDATE withdrawal_acts SET body = '{{' WHERE {acts('note')}", "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("way", UNREADABLE)
def test_a_cell_that_makes_no_sense_is_a_finding(way: str, filled: StateDirectory) -> None:
    """Whatever is written into a cell, the comparison ends with a verdict, and names the entry if it can."""
    statement, problem = UNREADABLE[way]
    found = tampered(filled, statement)
    assert re.search(problem, found.problem), found.problem
    assert (found.entry is None) == (way in ("moment", "json"))


ERASED_AND_MORE = {
    "other-withdrawal": "UPDATE withdrawal_acts SET body = '{}', salt = NULL, withdrawal = (SELECT id FROM "
    f"withdrawals WHERE state = 'refused') WHERE {acts('note')}",
    "other-kind": f"UPDATE withdrawal_acts SET body = '{{}}', salt = NULL, kind = 'owner' "
    f"WHERE {acts('note')}",
    "other-role": f"UPDATE withdrawal_acts SET body = '{{}}', salt = NULL, actor = 'server' "
    f"WHERE {acts('note')}",
    "other-state": "UPDATE withdrawal_events SET note = '', salt = NULL, old_state = 'restricted' "
    "WHERE new_state = 'refused'",
    "other-date": f'UPDATE withdrawal_acts SET body = \'{{"to": "2027-01-01"}}\' WHERE {acts("extended")}',
    "no-date": f"UPDATE withdrawal_acts SET body = '{{}}', salt = NULL WHERE {acts('hold')}",
    "no-document": f"UPDATE withdrawal_acts SET body = '{{}}', salt = NULL WHERE {acts('attachment')}",
    "owner-stays": f"UPDATE withdrawal_acts SET body = '{{}}', salt = NULL WHERE {acts('owner')}",
}


@pytest.mark.parametrize("way", ERASED_AND_MORE)
def test_an_erased_text_hides_nothing_else(way: str, filled: StateDirectory) -> None:
    """What the entry says in clear is compared all the same, and what is no text cannot be erased."""
    assert "was altered" in tampered(filled, ERASED_AND_MORE[way]).problem


def test_a_reason_can_be_erased_but_not_its_date(filled: StateDirectory) -> None:
    """The date is in the ledger anyhow, so it stays in the row."""
    found = tampered(
        filled,
        f"UPDATE withdrawal_acts SET body = json_object('to', body ->> 'to'), salt = NULL "
        f"WHERE {acts('extended')}",
    )
    assert (found.problem, found.erased) == ("", 1)


def test_a_state_of_a_former_release_holds_and_goes_on(state: StateDirectory) -> None:
    """Steps and acts are matched by their order, what entries say in clear is compared, new ones commit."""
    written_by_former_release(state)
    found = checked(state)
    assert (found.sound, found.compared, found.uncovered) == (True, 12, 12)
    first = Withdrawals(state).all()[0].id
    desk = PrivacyDesk(state, "officer", now=lambda: EARLY)
    desk.note(first, "a later word")
    desk.cancel(first, "mistake")
    assert Withdrawals(state).get(first).state is S.CANCELLED
    found = checked(state)
    assert (found.sound, found.compared, found.uncovered) == (True, 14, 12)


@pytest.mark.parametrize(
    "way", ["dropped-act", "dropped-step", "added-act", "state", "ground", "deadline", "in-part"]
)
def test_tampering_with_a_state_of_a_former_release(way: str, former: StateDirectory) -> None:
    """What its entries say is compared all the same."""
    assert not tampered(former, TAMPERING[way][0]).sound


def test_what_is_older_than_the_ledger_is_counted(former: StateDirectory) -> None:
    """It is no fault; what there are entries of is compared."""
    first_steps = "(SELECT MIN(number) + 1 FROM ledger WHERE kind = 'withdrawal')"
    found = tampered(
        former,
        f"DELETE FROM ledger WHERE kind = 'withdrawal' AND number <= {first_steps}",
        "DELETE FROM ledger WHERE kind = 'withdrawal-act' AND content LIKE '%\"note\"%'",
    )
    assert (found.problem, found.before, found.compared) == ("", 3, 9)
    found = tampered(former, "DELETE FROM ledger")
    assert (found.problem, found.before, found.compared) == ("", 12, 0)


@pytest.mark.parametrize(("at", "problem"), [("2126-01-01", "a step of withdrawal W-1 was added"),
                                             ("2016-01-01", "")])  # fmt: skip
def test_an_invented_withdrawal_must_be_backdated(at: str, problem: str, filled: StateDirectory) -> None:
    """Without a salt and an entry it passes only as older than the ledger, by its own dates."""
    columns = "id, sites, reason, requested_by, simulated, state, received_at, due_at"
    found = tampered(
        filled,
        f"INSERT INTO withdrawals (number, {columns}) SELECT 0, 'W-1', sites, 'x', 'x', simulated, "
        f"'received', '{at}', due_at FROM withdrawals WHERE in_part",
        "INSERT INTO withdrawal_events (number, withdrawal, at, actor, new_state, note) VALUES "
        f"(99, 'W-1', '{at}', 'me', 'received', '')",
    )
    assert found.problem.startswith(problem)
    assert (found.sound, found.before) == ((False, 0) if problem else (True, 1))


def test_a_withdrawal_that_was_added_is_found(filled: StateDirectory) -> None:
    """One without a step, later than those that the ledger knows."""
    columns = "sites, reason, requested_by, simulated, state, received_at, due_at"
    found = tampered(
        filled,
        f"INSERT INTO withdrawals (number, id, {columns}) SELECT 99, 'W-1', {columns} FROM withdrawals "
        "WHERE in_part",
    )
    assert (found.entry, found.problem.split(":")[0]) == (None, "withdrawal W-1 was added to the register")
