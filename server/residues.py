"""Whether Flower's SuperLink still holds messages, and so updates, of a site whose withdrawal has completed.

The SuperLink has a database of its own, which the server does not touch; ``deploy`` empties it, and the
ledger knows when.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from server.persistence import Ledger, StateDirectory, WithdrawalRecord, Withdrawals
from server.persistence.ledger_entries import MESSAGES_PURGED
from unlearning.withdrawal import WithdrawalState


@dataclass(frozen=True, slots=True)
class Purge:
    """The SuperLink's database was emptied.

    Attributes
    ----------
    at
        When; UTC.
    objects
        Parts of messages that were removed.
    """

    at: dt.datetime
    objects: int


def note_purge(state: StateDirectory, objects: int, size: int) -> None:
    """Put on record that the SuperLink's database was emptied of ``objects`` of ``size`` bytes."""
    Ledger(state).append(MESSAGES_PURGED, {"objects": objects, "bytes": size})


def purge_after(state: StateDirectory, record: WithdrawalRecord) -> Purge | None:
    """The first time it was emptied after the withdrawal had completed; ``None`` if it was not."""
    if record.closed_at is None:
        return None
    for entry in Ledger(state).entries([MESSAGES_PURGED]):
        at = dt.datetime.fromisoformat(entry.at)
        if at >= record.closed_at:
            return Purge(at, int(entry.body["objects"]))
    return None


def unpurged(state: StateDirectory) -> list[WithdrawalRecord]:
    """Completed withdrawals since which the SuperLink's database was not emptied."""
    return [
        record
        for record in Withdrawals(state).all()
        if record.state is WithdrawalState.COMPLETED
        and not record.simulated
        and purge_after(state, record) is None
    ]
