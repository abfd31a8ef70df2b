"""What may be left of a site whose withdrawal has completed, as far as it is on record.

Flower's SuperLink has a database of its own with messages, and so updates, which the server does not touch;
``deploy`` empties it, and the ledger knows when. Copies of the sites' keys may be out of reach when the keys
are destroyed; an act of the withdrawal says how many. Backups may have been made while contributions were not
encrypted; no erasure reaches those.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from server.names import SERVER
from server.persistence import Ledger, StateDirectory, WithdrawalActs, WithdrawalRecord, Withdrawals
from server.persistence.ledger_entries import MESSAGES_PURGED, STATE_COPIED
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


@dataclass(frozen=True, slots=True)
class KeysDestroyed:
    """How far the destruction of the sites' keys got.

    Attributes
    ----------
    at
        When that was found; UTC.
    copies
        Copies of the keys that were to be overwritten.
    unreached
        Of them, those that still may hold the keys.
    log_emptied
        The database's log of writes was emptied afterwards.
    made_good
        Not at once, but at a later attempt. A copy that the operator declared destroyed counts as reached.
    """

    at: dt.datetime
    copies: int
    unreached: int
    log_emptied: bool
    made_good: bool = False


def note_keys_destroyed(
    state: StateDirectory, withdrawal: str, *, copies: int, unreached: int, log_emptied: bool
) -> None:
    """Put on record how far it got; the same again (after a crash) is not repeated.

    Where copies are is not: a path may name a person.
    """
    found = {"copies": copies, "unreached": unreached, "log_emptied": log_emptied}
    acts = WithdrawalActs(state)
    known = [act.body["keys"] for act in acts.of(withdrawal, "erasure") if "keys" in act.body]
    if not known or known[-1] != found:
        body = {"files": [], "revoked": [], "keys": found}
        acts.add(withdrawal, "erasure", body, at=dt.datetime.now(dt.UTC), actor=SERVER)


def keys_destroyed(state: StateDirectory, withdrawal: str) -> KeysDestroyed | None:
    """How far it has got by now; ``None`` if that is not on record: an earlier release completed it."""
    acts = [act for act in WithdrawalActs(state).of(withdrawal, "erasure") if "keys" in act.body]
    if not acts:
        return None
    *former, last = [act.body["keys"] for act in acts]
    open_before = any(keys["unreached"] or not keys["log_emptied"] for keys in former)
    return KeysDestroyed(at=acts[-1].at, made_good=open_before, **last)


def note_made_good(state: StateDirectory, unreached: int, *, log_emptied: bool) -> None:
    """After another attempt at every copy: what earlier erasures had left open, and is done now.

    Never more is left of one than there was: a copy may be younger than the erasure.
    """
    for record in Withdrawals(state).all():
        found = keys_destroyed(state, record.id)
        if record.state is WithdrawalState.COMPLETED and found is not None:
            note_keys_destroyed(
                state,
                record.id,
                copies=found.copies,
                unreached=min(found.unreached, unreached),
                log_emptied=found.log_emptied or log_emptied,
            )


@dataclass(frozen=True, slots=True)
class Backups:
    """Backups by ``reconsent backup`` from before a withdrawal had completed.

    Attributes
    ----------
    plain
        How many were begun while contributions were not encrypted.
    unknown
        How many by an earlier release, which did not put on record whether they were.
    """

    plain: int
    unknown: int


def backups_before(state: StateDirectory, record: WithdrawalRecord) -> Backups:
    """Which of them an erasure may not have reached."""
    copied = [
        entry.body.get("sealed")
        for entry in Ledger(state).entries([STATE_COPIED])
        if record.closed_at is None or dt.datetime.fromisoformat(entry.at) <= record.closed_at
    ]
    return Backups(copied.count(False), copied.count(None))


def unfinished(state: StateDirectory, record: WithdrawalRecord) -> tuple[str, ...]:
    """What of the erasure is known not to be done, in sentences; of a completed withdrawal."""
    found = []
    if not record.simulated and purge_after(state, record) is None:
        found.append(
            "The database of Flower's SuperLink was not emptied since the withdrawal completed; it may hold "
            "messages with updates of the site."
        )
    keys = keys_destroyed(state, record.id)
    if keys is not None and keys.unreached:
        found.append(
            f"{keys.unreached} of {keys.copies} copies of the keys were not reached, and may still hold the "
            "key of the site: with it, what backups have of its contributions can be read."
        )
    if keys is not None and not keys.log_emptied:
        found.append("The database's log of writes was not emptied yet; deleted rows may stand in it.")
    if plain := backups_before(state, record).plain:
        found.append(
            f"{plain} backups were made by `reconsent backup` while contributions were not encrypted. Unless "
            "they are destroyed they may hold contributions of the site that anybody can read; no erasure "
            "reaches them."
        )
    return tuple(found)
