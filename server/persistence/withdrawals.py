"""Withdrawals: filed, moved from state to state, and never forgotten."""

from __future__ import annotations

import datetime as dt
import difflib
import uuid
from collections.abc import Callable, Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from reconsent.errors import WithdrawalError
from server.persistence.ledger import Ledger
from server.persistence.ledger_entries import WITHDRAWAL, withdrawal_body
from server.persistence.repetitions import (
    Repetition,
    answered_under,
    refuse_other_scope,
    same_number,
)
from server.persistence.roster import Roster, SiteStatus
from server.persistence.state import StateDirectory
from server.persistence.tables import SiteRow, WithdrawalEventRow, WithdrawalRow
from server.persistence.withdrawal_acts import WithdrawalActs, check_clock
from server.persistence.withdrawal_records import (
    WithdrawalEvent,
    WithdrawalRecord,
    event_of,
    record_of,
)
from unlearning.database import ContributionRow
from unlearning.ledger.commitments import new_salt
from unlearning.request import LONGEST_NAME, PATIENTS_ONLY, RequestDetails, checked_text, time_zone
from unlearning.withdrawal import WithdrawalState, check_transition, deadline

_BACK_IN = {WithdrawalState.REFUSED, WithdrawalState.CANCELLED}


def utc_now() -> dt.datetime:
    """The present moment, UTC."""
    return dt.datetime.now(dt.UTC)


class Withdrawals:
    """The register of withdrawals.

    Every change of state and its event are one transaction, in which the roster follows: *restricted* bars
    the sites and freezes their contributions, *refused* and *cancelled* let them back in, *completed* is
    for good; where only patients leave, the roster stays as it is. Events can only be added; the database
    itself refuses to change or delete one.

    Parameters
    ----------
    state
        Where it is kept.
    now
        The clock; the register, not the requester, says when a request was received.
    """

    def __init__(self, state: StateDirectory, *, now: Callable[[], dt.datetime] = utc_now) -> None:
        self._state = state
        self._roster = Roster(state)
        self._acts = WithdrawalActs(state)
        self._ledger = Ledger(state)
        self._now = now

    def file(
        self,
        sites: Sequence[str],
        *,
        reason: str,
        requested_by: str,
        method: str | None = None,
        at_round: int | None = None,
        simulated: bool = False,
        restrict: bool = False,
        cooperating: bool = False,
        details: RequestDetails | None = None,
        session: Session | None = None,
    ) -> WithdrawalRecord:
        """File a withdrawal. While one of these sites is open, it is answered; nothing is filed twice.

        Requests of patients whose site stays are told apart by their numbers alone: without one each is new.

        Whatever the second request says differently is kept with the first, which stands as it is, its
        deadline included.

        Parameters
        ----------
        sites
            Who leaves, together.
        reason, requested_by
            Why, and who asks; kept with the record.
        method
            Unlearning method wanted; ``None`` for the configured one.
        at_round
            Carry it out after this training round; ``None`` for at once.
        simulated
            Nobody asked: the withdrawal is exercised in a simulation.
        restrict
            Bar the sites in the same transaction, rather than when the server comes to it.
        cooperating
            The sites still answer, for their part of the unlearning and nothing else.
        details
            Ground, scope, time of receipt, owner and number of the request, and how it came in.
        session
            Transaction to take part in.

        Raises
        ------
        WithdrawalError
            If a site is unknown, has withdrawn, or is being withdrawn together with others, by another
            method or after another round; if no site would remain; if the number of the request belongs to
            another one, or to one that is closed; if the sites shall be barred at once and take part until a
            later round; if a text cannot be kept; or if the clock was set back.
        """
        if restrict and at_round is not None:
            raise WithdrawalError(
                f"The sites cannot be barred at once and take part until round {at_round}.",
                "File it without a round: a withdrawal is carried out after the present one.",
            )
        names = tuple(sorted(set(sites)))
        now = self._now()
        asked = (details or RequestDetails()).checked(now)
        reason = checked_text(reason, "The reason")
        requested_by = checked_text(requested_by, "Who asks", longest=LONGEST_NAME, lines=False)
        with self._state.session(session) as own:
            check_clock(own, now)
            twin = self._accept(own, names, asked, (method, at_round, simulated))
            if twin is not None:
                again = Repetition(
                    sites=names,
                    reason=reason,
                    requested_by=requested_by,
                    cooperating=cooperating,
                    asked=asked,
                )
                self._note_repetition(own, record_of(twin), again)
            else:
                received = asked.received_at or now
                twin = WithdrawalRow(
                    id=f"W-{now:%Y%m%d}-{uuid.uuid4().hex[:6]}",
                    sites=list(names),
                    reason=reason,
                    requested_by=requested_by,
                    method=method,
                    at_round=at_round,
                    simulated=simulated,
                    state=WithdrawalState.RECEIVED.value,
                    received_at=received,
                    due_at=deadline(received, zone=time_zone(asked.zone)),
                    filed_at=now,
                    request_id=asked.request_id,
                    ground=asked.ground.value,
                    scope=asked.scope,
                    patients=asked.patients,
                    owner=asked.owner,
                    time_zone=asked.zone,
                    in_part=False,
                    cooperating=cooperating,
                    **asked.intake.table,
                )
                own.add(twin)
                own.flush()
                self._log(own, twin, None, requested_by, reason)
            if restrict and twin.state == WithdrawalState.RECEIVED:
                self._move(own, twin, WithdrawalState.RESTRICTED, requested_by, "restricted on receipt")
            return record_of(twin)

    def advance(
        self,
        id: str,
        new_state: WithdrawalState,
        *,
        note: str,
        actor: str = "server",
        session: Session | None = None,
    ) -> WithdrawalRecord:
        """Move a withdrawal on. If it is in ``new_state`` already, nothing changes.

        Parameters
        ----------
        id
            Which one.
        new_state
            Where to.
        note
            Why; for ``failed``, what went wrong.
        actor
            Who moves it.
        session
            Transaction to take part in.

        Raises
        ------
        WithdrawalError
            If it is unknown, or cannot go there from where it stands.
        """
        with self._state.session(session) as own:
            row = self._row(own, id)
            if row.state != new_state:
                self._move(own, row, new_state, actor, note)
            return record_of(row)

    def open(self, *, session: Session | None = None) -> list[WithdrawalRecord]:
        """Withdrawals to which something can still happen, oldest first."""
        return [record for record in self.all(session=session) if not record.state.closed]

    def get(self, id: str, *, session: Session | None = None) -> WithdrawalRecord:
        """The withdrawal called ``id``.

        Raises
        ------
        WithdrawalError
            If there is none.
        """
        with self._state.reading(session) as own:
            return record_of(self._row(own, id, lock=False))

    def all(self, *, session: Session | None = None) -> list[WithdrawalRecord]:
        """Every withdrawal, oldest first."""
        with self._state.reading(session) as own:
            return [record_of(row) for row in _in_order(own)]

    def events(self, id: str, *, session: Session | None = None) -> list[WithdrawalEvent]:
        """The steps of a withdrawal, oldest first.

        Raises
        ------
        WithdrawalError
            If there is no such withdrawal.
        """
        with self._state.reading(session) as own:
            self._row(own, id, lock=False)
            query = select(WithdrawalEventRow).where(WithdrawalEventRow.withdrawal == id)
            return [event_of(row) for row in own.scalars(query.order_by(WithdrawalEventRow.number))]

    def _accept(
        self,
        session: Session,
        names: tuple[str, ...],
        asked: RequestDetails,
        how: tuple[str | None, int | None, bool],
    ) -> WithdrawalRow | None:
        if not names:
            raise WithdrawalError("The withdrawal names no site.", "Say who leaves.")
        # All rows of the roster, locked: two requests must not each leave the other's site as the last.
        rows = session.scalars(select(SiteRow).order_by(SiteRow.name).with_for_update())
        roster = {row.name: row for row in rows}
        filed = _in_order(session)
        if asked.scope == PATIENTS_ONLY and len(names) != 1:
            raise WithdrawalError(
                f"Patients of {', '.join(names)} cannot leave by one request.",
                "File one for each site: each does its part by itself.",
            )
        if asked.request_id is not None:
            for row in filed:
                if row.request_id == asked.request_id:
                    refuse_other_scope(row, asked)
                    return same_number(row, names, asked.request_id, row.sites)
            if (answered := answered_under(session, asked.request_id)) is not None:
                row = next(row for row in filed if row.id == answered[0])
                refuse_other_scope(row, asked)
                return same_number(row, names, asked.request_id, answered[1] or row.sites)
        leaving: set[str] = set()
        for row in filed:
            if WithdrawalState(row.state).closed:
                continue
            if row.scope == PATIENTS_ONLY:
                # Other patients are other requests, and nobody has to wait for them: not their site either.
                continue
            if asked.scope != PATIENTS_ONLY and _answers(row, names, how):
                return row
            taken = [name for name in names if name in row.sites]
            if taken:
                raise WithdrawalError(
                    f"Site '{taken[0]}' is being withdrawn already, by request {row.id} "
                    f"of {row.received_at:%Y-%m-%d} (state '{row.state}').",
                    "Follow that request, or cancel it before you file another.",
                )
            leaving |= set(row.sites)
        for name in names:
            if name not in roster:
                near = difflib.get_close_matches(name, list(roster), n=1)
                hint = f"Did you mean '{near[0]}'? " if near else ""
                known = f"Sites are: {', '.join(sorted(roster))}." if roster else "No site has enrolled yet."
                raise WithdrawalError(f"There is no site '{name}' to withdraw.", hint + known)
            if roster[name].status == SiteStatus.WITHDRAWN:
                raise WithdrawalError(f"Site '{name}' has withdrawn already.", "There is nothing left to do.")
        if asked.scope == PATIENTS_ONLY:
            return None
        active = {name for name, row in roster.items() if row.status == SiteStatus.ACTIVE}
        if not active - leaving - set(names):
            raise WithdrawalError(
                f"Without {', '.join(names)} no site would remain to train with, so nothing could be "
                "unlearned by training on.",
                "Destroy the state directory with its models instead, or enrol another site first.",
            )
        return None

    def _note_repetition(self, session: Session, first: WithdrawalRecord, again: Repetition) -> None:
        body = again.body(first)
        earlier = [dict(act.body) for act in self._acts.of(first.id, "repeated", session=session)]
        if again.differs(first) and body not in earlier:
            actor = again.requested_by
            self._acts.add(first.id, "repeated", body, at=self._now(), actor=actor, session=session)

    def _move(
        self, session: Session, row: WithdrawalRow, new: WithdrawalState, actor: str, note: str
    ) -> None:
        old = WithdrawalState(row.state)
        failed_in = WithdrawalState(row.failed_in) if row.failed_in else None
        check_transition(old, new, failed_in=failed_in)
        row.state = new.value
        row.failed_in = old.value if new is WithdrawalState.FAILED else None
        if new is WithdrawalState.RESTRICTED:
            row.restricted_at = row.restricted_at or self._now()
        if not record_of(row).site_stays:
            self._follow(session, row.sites, new)
        if new.closed:
            row.closed_at = self._now()
        self._log(session, row, old, actor, note)

    def _follow(self, session: Session, sites: Sequence[str], new: WithdrawalState) -> None:
        """Let the roster, and what is kept of the sites, follow a change of state."""
        if new in {WithdrawalState.RESTRICTED, WithdrawalState.LEGAL_HOLD}:
            self._roster.bar(sites, session=session)
            self._freeze(session, sites, frozen=True)
        if new in _BACK_IN:
            self._roster.readmit(sites, session=session)
            self._freeze(session, sites, frozen=False)
        if new is WithdrawalState.COMPLETED:
            self._roster.withdraw(sites, session=session)

    def _log(
        self, session: Session, row: WithdrawalRow, old: WithdrawalState | None, actor: str, note: str
    ) -> None:
        event = WithdrawalEventRow(
            withdrawal=row.id,
            at=self._now(),
            actor=actor,
            old_state=None if old is None else old.value,
            new_state=row.state,
            note=note,
            salt=new_salt(),
        )
        session.add(event)
        session.flush()
        self._ledger.append(WITHDRAWAL, withdrawal_body(row, event), session=session)

    @staticmethod
    def _freeze(session: Session, sites: Sequence[str], *, frozen: bool) -> None:
        session.execute(update(ContributionRow).where(ContributionRow.site.in_(sites)).values(frozen=frozen))

    @staticmethod
    def _row(session: Session, id_: str, *, lock: bool = True) -> WithdrawalRow:
        query = select(WithdrawalRow).where(WithdrawalRow.id == id_)
        row = session.scalar(query.with_for_update() if lock else query)
        if row is None:
            raise WithdrawalError(
                f"There is no withdrawal '{id_}'.", "`reconsent withdrawals list` names them."
            )
        return row


def _answers(row: WithdrawalRow, names: tuple[str, ...], how: tuple[str | None, int | None, bool]) -> bool:
    """Whether an open withdrawal does all that is asked."""
    method, at_round, simulated = how
    return (
        set(names) <= set(row.sites)
        and method in (None, row.method)
        and at_round in (None, row.at_round)
        and simulated == row.simulated
    )


def _in_order(session: Session) -> list[WithdrawalRow]:
    return list(session.scalars(select(WithdrawalRow).order_by(WithdrawalRow.number)))
