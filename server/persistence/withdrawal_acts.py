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
from server.persistence.ledger_entries import WITHDRAWAL_ACT, act_body
from server.persistence.state import StateDirectory
from server.persistence.tables import WithdrawalActRow, WithdrawalEventRow

ActKind = Literal[
    "note", "attachment", "owner", "extended", "hold", "in-part", "notice", "repeated",
    "policy", "figures", "erasure", "certificate",
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
            row = WithdrawalActRow(withdrawal=withdrawal, at=at, actor=actor, kind=kind, body=dict(body))
            own.add(row)
            own.flush()
            self._ledger.append(WITHDRAWAL_ACT, act_body(withdrawal, kind, body, actor), session=own)

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
    newest = [
        moment
        for column in (WithdrawalEventRow.at, WithdrawalActRow.at)
        if (moment := session.scalar(select(func.max(column)))) is not None
    ]
    if newest and max(newest) > now + CLOCK_SLACK:
        raise WithdrawalError(
            f"This machine's clock says {now.isoformat(timespec='seconds')}, but the register has an entry "
            f"of {max(newest).isoformat(timespec='seconds')}.",
            "Was the clock set back? Correct it, then repeat the command.",
        )
