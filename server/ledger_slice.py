"""The part of the ledger that is about one withdrawal, with the proofs that it is in the ledger."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator

from server.persistence import Ledger, WithdrawalRecord
from server.persistence.ledger_entries import (
    KEY_REVOKED,
    MESSAGES_PURGED,
    MODEL_REGISTERED,
    MODELS_REVOKED,
    WITHDRAWAL,
)
from unlearning.ledger.checkpoints import Checkpoint
from unlearning.ledger.entries import KEY_REPLACED, LEDGER_BEGUN, Entry
from unlearning.ledger.slices import GivenEntry, slice_lines


def slice_of(
    ledger: Ledger,
    withdrawal: WithdrawalRecord,
    until: Checkpoint,
    *,
    after: str | None,
    notice: str,
    witnessed: Collection[int] = (),
) -> bytes:
    """The entries of a withdrawal, and the checkpoints before it, at each change of its state, and now.

    Parameters
    ----------
    ledger, withdrawal
        Which, of what.
    until
        The last checkpoint: everything is proved for the ledger as it was then.
    after
        The version the withdrawal ended with: the entry that registered it is given too.
    notice
        What everybody must see of a simulation.
    witnessed
        Sizes of the ledger that sites have seen: the checkpoints of these are given too.

    Raises
    ------
    LedgerError
        If the ledger was altered.
    """
    entries = [entry for entry in ledger.entries() if entry.number <= until.size]
    own = [entry for entry in entries if entry.body.get("withdrawal") == withdrawal.id]
    first = own[0].number if own else until.size
    steps = [entry.number for entry in own if entry.kind == WITHDRAWAL]
    sizes = sorted({max(first - 1, 1), *steps, *witnessed, until.size})
    checkpoints = [
        (ledger.envelope(size), ledger.consistency(old, new=size) if old else [])
        for old, size in zip([0, *sizes], sizes, strict=False)
    ]
    given = [
        GivenEntry(
            entry=entry,
            inclusion=ledger.inclusion(entry.number, size=until.size),
            withheld=_names_others(entry, withdrawal),
        )
        for entry in _chosen(entries, withdrawal, first, after)
    ]
    about = {"ledger": until.ledger, "withdrawal": withdrawal.id, "notice": notice}
    return b"".join(slice_lines(about, checkpoints, given))


def _chosen(
    entries: list[Entry], withdrawal: WithdrawalRecord, first: int, after: str | None
) -> Iterator[Entry]:
    purged = False
    for entry in entries:
        body, kind = entry.body, entry.kind
        of_site = kind in (KEY_REVOKED, MODELS_REVOKED) and body.get("site") in withdrawal.sites
        made = kind == MODEL_REGISTERED and after is not None and body.get("version") == after
        purge = (
            kind == MESSAGES_PURGED
            and not purged
            and withdrawal.closed_at is not None
            and dt.datetime.fromisoformat(entry.at) >= withdrawal.closed_at
        )
        purged = purged or purge
        if (
            kind in (LEDGER_BEGUN, KEY_REPLACED)
            or body.get("withdrawal") == withdrawal.id
            or (of_site and entry.number >= first)
            or made
            or purge
        ):
            yield entry


def _names_others(entry: Entry, withdrawal: WithdrawalRecord) -> bool:
    named = {*entry.body.get("sites", ()), *entry.body.get("forgotten", ())}
    return not named <= set(withdrawal.sites)
