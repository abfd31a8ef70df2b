"""What a certificate says is left of a site, and how the rest was erased."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from server.certificate_parts import exceptions_of, how_erased
from server.persistence import Ledger, Roster, StateDirectory, WithdrawalRecord, Withdrawals
from server.persistence.ledger_entries import STATE_COPIED
from server.residues import Backups, backups_before
from unlearning.withdrawal import WithdrawalState


@pytest.fixture
def completed(state: StateDirectory) -> WithdrawalRecord:
    """A withdrawal of delta, as it is read once it has completed."""
    for node, site in enumerate(("alpha", "delta")):
        Roster(state).enrol(site, node, "knee", 10, round=1)
    record = Withdrawals(state).file(["delta"], reason="asked", requested_by="dpo", restrict=True)
    return replace(record, state=WithdrawalState.COMPLETED, closed_at=dt.datetime.now(dt.UTC))


def test_rows_are_said_to_be_overwritten_only_where_they_are(
    state: StateDirectory, completed: WithdrawalRecord
) -> None:
    """SQLite overwrites deleted rows; PostgreSQL keeps them for a while, which is an exception."""
    overwritten = state.engine.url.get_backend_name() == "sqlite"
    kept = [text for text in exceptions_of(state, completed, [], []) if "VACUUM" in text]
    assert ("secure_delete" in how_erased(state, completed)) == overwritten
    assert len(kept) == (not overwritten)


def test_backups_that_no_erasure_reaches_are_counted(
    state: StateDirectory, completed: WithdrawalRecord
) -> None:
    """Those from before the completion that were not sealed; of earlier releases nobody knows."""
    ledger = Ledger(state)
    assert backups_before(state, completed) == Backups(plain=0, unknown=0)
    for body in ({"sealed": True}, {"sealed": False}, {"sealed": False}, {}):
        ledger.append(STATE_COPIED, {"erasures": 0, **body})
    later = replace(completed, closed_at=dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1))
    assert backups_before(state, completed) == Backups(plain=0, unknown=0)
    assert backups_before(state, later) == Backups(plain=2, unknown=1)
    found = exceptions_of(state, later, [], [])
    assert any(text.startswith("2 backups") for text in found)
    assert any(text.startswith("Of 1 backups") for text in found)
