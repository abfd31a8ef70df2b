"""What is done about a withdrawal besides moving it on: notes, documents, notices, figures."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from reconsent.errors import WithdrawalError
from server.persistence.ledger import Ledger
from server.persistence.ledger_entries import CLOCK_CORRECTED, WITHDRAWAL_ACT, act_body
from server.persistence.state import StateDirectory
from server.persistence.tables import LedgerRow, WithdrawalActRow, WithdrawalEventRow
from unlearning.ledger.commitments import new_salt
from unlearning.ledger.entries import Entry

ActKind = Literal[
    "note", "attachment", "owner", "intake", "extended", "hold", "in-part", "notice", "repeated",
    "policy", "figures", "erasure", "certificate", "countersigned",
]  # fmt: skip

CLOCK_SLACK = dt.timedelta(minutes=1)
"""How far a clock may be behind what is on record: other machines write here too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalAct:
    """Something that was done about a withdrawal.

    Attributes
    ----------
    number
        Its place among all acts.
    at, actor
        When (UTC), and by whom.
    kind, body
        What; the body holds JSON values.
    """

    number: int
    at: dt.datetime
    actor: str
    kind: str
    body: Mapping[str, Any]


class WithdrawalActs:
    """The acts, to which can only be added: the database itself refuses to change or delete one."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._ledger = Ledger(state)

    def add(
        self,
        withdrawal: str,
        kind: ActKind,
        body: Mapping[str, Any],
        *,
        at: dt.datetime,
        actor: str,
        session: Session | None = None,
    ) -> None:
        """Add one, in the transaction ``session`` if given."""
        with self._state.session(session) as own:
            row = WithdrawalActRow(
                withdrawal=withdrawal, at=at, actor=actor, kind=kind, body=dict(body), salt=new_salt()
            )
            own.add(row)
            own.flush()
            self._ledger.append(WITHDRAWAL_ACT, act_body(row), session=own)

    def of(self, withdrawal: str, *kinds: ActKind, session: Session | None = None) -> list[WithdrawalAct]:
        """Those of a withdrawal, of ``kinds`` or of all, oldest first."""
        query = select(WithdrawalActRow).where(WithdrawalActRow.withdrawal == withdrawal)
        if kinds:
            query = query.where(WithdrawalActRow.kind.in_(kinds))
        with self._state.reading(session) as own:
            return [
                WithdrawalAct(number=row.number, at=row.at, actor=row.actor, kind=row.kind, body=row.body)
                for row in own.scalars(query.order_by(WithdrawalActRow.number))
            ]


def check_clock(session: Session, now: dt.datetime) -> None:
    """Refuse to put a new request or act on record with a clock that was set back.

    Raises
    ------
    WithdrawalError
        If something on record is later than ``now``: deadlines would be computed from a wrong moment.
    """
    newest = newest_on_record(session)
    if newest is not None and newest > now + CLOCK_SLACK:
        raise WithdrawalError(
            f"This machine's clock says {now.isoformat(timespec='seconds')}, but the register has an entry "
            f"of {newest.isoformat(timespec='seconds')}.",
            "Was the clock set back? Correct it, then repeat the command. If it is right now, and was ahead "
            "when that entry was written: `reconsent withdrawals accept-clock`.",
        )


def newest_on_record(session: Session) -> dt.datetime | None:
    """The latest moment in the register, but for what was written before a correction of the clock."""
    query = select(LedgerRow.content).where(LedgerRow.kind == CLOCK_CORRECTED)
    content = session.scalar(query.order_by(LedgerRow.number.desc()).limit(1))
    ahead = {} if content is None else Entry.of(content).body
    moments = [
        session.scalar(select(func.max(table.at)).where(table.number > int(ahead.get(name, 0))))
        for name, table in _WRITTEN.items()
    ]
    return max((moment for moment in moments if moment is not None), default=None)


def last_numbers(session: Session) -> dict[str, int]:
    """Of the newest event and act; what a correction of the clock names."""
    return {name: session.scalar(select(func.max(table.number))) or 0 for name, table in _WRITTEN.items()}


_WRITTEN: Mapping[str, type[WithdrawalEventRow] | type[WithdrawalActRow]] = {
    "events": WithdrawalEventRow,
    "acts": WithdrawalActRow,
}
