"""What a certificate says is left of a site, and how the rest was erased."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from server.certificate_parts import exceptions_of, how_erased
from server.persistence import Roster, StateDirectory, WithdrawalRecord, Withdrawals
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
