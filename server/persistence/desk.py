"""What a privacy officer does about a withdrawal: extend, hold, refuse, cancel, note, attach."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from reconsent.errors import WithdrawalError
from server.persistence.ledger import Ledger
from server.persistence.ledger_entries import CLOCK_CORRECTED, role
from server.persistence.state import StateDirectory
from server.persistence.tables import WithdrawalRow
from server.persistence.withdrawal_acts import (
    CLOCK_SLACK,
    ActKind,
    WithdrawalAct,
    WithdrawalActs,
    check_clock,
    last_numbers,
    newest_on_record,
)
from server.persistence.withdrawal_records import WithdrawalRecord, intake_of, record_of
from server.persistence.withdrawals import Withdrawals, utc_now
from unlearning.intake import Intake
from unlearning.request import LONGEST_NAME, Attachment, checked_intake, checked_text, time_zone
from unlearning.withdrawal import WithdrawalState, deadline

_BEFORE_UNLEARNING = (WithdrawalState.RECEIVED, WithdrawalState.RESTRICTED, WithdrawalState.LEGAL_HOLD)


class PrivacyDesk:
    """Decisions and records about withdrawals, each with who took it, when and why.

    It may be used while a run is under way: the server looks after each round what became of the
    withdrawal it works on.

    Parameters
    ----------
    state
        Where withdrawals are kept; open for writing.
    actor
        Who decides; kept with everything.
    now
        The clock.
    """

    def __init__(
        self, state: StateDirectory, actor: str, *, now: Callable[[], dt.datetime] = utc_now
    ) -> None:
        self._state = state
        self._register = Withdrawals(state, now=now)
        self._acts = WithdrawalActs(state)
        self._ledger = Ledger(state)
        self._actor = checked_text(actor, "Who does it", longest=LONGEST_NAME, lines=False)
        self._now = now

    # ---- decisions ------------------------------------------------------------------------------------

    def extend(self, id: str, reason: str) -> WithdrawalRecord:
        """Extend the period for the answer by two months, counted from receipt (GDPR Art. 12(3)).

        Raises
        ------
        WithdrawalError
            If it was extended before, is closed, or the first month is over: the requester must be told of
            the extension and its reasons within that month.
        """
        reason = checked_text(reason, "The reason")
        with self._state.session() as session:
            row = self._open(session, id)
            now = self._now()
            if row.extended_at is not None:
                raise WithdrawalError(
                    f"Withdrawal {id} was extended on {row.extended_at:%Y-%m-%d}, to {row.due_at:%Y-%m-%d}.",
                    "A period is extended once; carry the withdrawal out, or refuse it with a reason.",
                )
            if now > row.due_at:
                raise WithdrawalError(
                    f"Withdrawal {id} was due on {row.due_at:%Y-%m-%d}; it can no longer be extended.",
                    "Answer the requester now, and put on record with `withdrawals note` why it is late.",
                )
            first = row.due_at
            row.extended_at = now
            row.due_at = deadline(row.received_at, extended=True, zone=time_zone(row.time_zone or "UTC"))
            body = {"reason": reason, "from": first.isoformat(), "to": row.due_at.isoformat()}
            self._add(session, id, "extended", body)
            return record_of(row)

    def hold(self, id: str, reason: str, until: dt.date | None = None) -> WithdrawalRecord:
        """Put it on legal hold: the sites stay barred, nothing is unlearned or erased until it is released.

        Data accrued in a regulated trial, or needed for a legal claim (GDPR Art. 17(3)(e)), must be kept. On
        hold already, another reason or date is put on record as well; the same again changes nothing.

        Raises
        ------
        WithdrawalError
            If it is closed or erasing already.
        """
        end = None if until is None else until.isoformat()
        body = {"reason": checked_text(reason, "The reason"), "until": end}
        return self._decide(id, WithdrawalState.LEGAL_HOLD, reason, ("hold", body))

    def release(self, id: str, reason: str) -> WithdrawalRecord:
        """End a legal hold; the withdrawal goes on where the sites are barred.

        Raises
        ------
        WithdrawalError
            If it is not on hold.
        """
        record = self._register.get(id)
        if record.state is not WithdrawalState.LEGAL_HOLD:
            raise WithdrawalError(
                f"Withdrawal {id} is '{record.state}', not on legal hold.", "There is nothing to release."
            )
        return self._decide(id, WithdrawalState.RESTRICTED, reason)

    def refuse(self, id: str, reason: str) -> WithdrawalRecord:
        """Refuse it (GDPR Art. 12(4), 17(3)): the sites take part again, with new keys.

        Raises
        ------
        WithdrawalError
            If it is closed or erasing already, also if it was refused before with another reason.
        """
        return self._decide(id, WithdrawalState.REFUSED, reason)

    def cancel(self, id: str, reason: str) -> WithdrawalRecord:
        """End it because who asked wants it no more; the sites take part again, with new keys.

        Raises
        ------
        WithdrawalError
            If it is closed or erasing already, also if it was cancelled before with another reason.
        """
        return self._decide(id, WithdrawalState.CANCELLED, reason)

    def grant_in_part(self, id: str, reason: str) -> WithdrawalRecord:
        """Grant it in part: the sites stay barred and their contributions are erased, the models stay.

        Raises
        ------
        WithdrawalError
            If its unlearning has begun, or it is closed.
        """
        reason = checked_text(reason, "The reason")
        with self._state.session() as session:
            row = self._open(session, id)
            if WithdrawalState(row.failed_in or row.state) not in _BEFORE_UNLEARNING:
                raise WithdrawalError(
                    f"The unlearning of withdrawal {id} has begun (state '{row.state}').",
                    "Let it end, or refuse the withdrawal.",
                )
            row.in_part = True
            self._add_new(session, id, "in-part", {"reason": reason})
            return record_of(row)

    def accept_clock(self) -> list[WithdrawalRecord]:
        """Say that the clock is right now, and was ahead when the newest entries were written.

        Without this a register that a clock of a wrong year has written to would take no request before
        that year.

        Returns
        -------
        The withdrawals that were filed by the wrong clock: their deadlines were computed from it.

        Raises
        ------
        WithdrawalError
            If nothing on record is later than now.
        """
        with self._state.session() as session:
            now, newest = self._now(), newest_on_record(session)
            if newest is None or newest <= now + CLOCK_SLACK:
                raise WithdrawalError(
                    f"Nothing in the register is later than {now.isoformat(timespec='seconds')}.",
                    "There is nothing to be corrected.",
                )
            body = {**last_numbers(session), "by": role(self._actor)}
            self._ledger.append(CLOCK_CORRECTED, body, session=session)
        return [record for record in self._register.all() if record.filed_at > now + CLOCK_SLACK]

    # ---- records --------------------------------------------------------------------------------------

    def note(self, id: str, text: str) -> None:
        """Add a note, also to a closed withdrawal."""
        self._record(id, "note", {"text": checked_text(text, "The note")})

    def attach(self, id: str, attachment: Attachment) -> None:
        """Add a document by its hash; the same one again changes nothing."""
        body = asdict(attachment)
        if body not in [dict(act.body) for act in self._acts.of(id, "attachment")]:
            self._record(id, "attachment", body)

    def assign(self, id: str, owner: str) -> None:
        """Say who attends to it."""
        owner = checked_text(owner, "The owner", longest=LONGEST_NAME, lines=False)
        with self._state.session() as session:
            row = self._row(session, id)
            row.owner = owner
            self._add(session, id, "owner", {"owner": owner})

    def correct(self, id: str, intake: Intake) -> None:
        """Say how the request came in, also later and of a closed one; what ``intake`` leaves out stays.

        What was on record before is kept with the correction; the same again changes nothing.
        """
        said = checked_intake(intake).stated
        with self._state.session() as session:
            row = self._row(session, id)
            known = intake_of(row).table
            new = {name: value for name, value in said.items() if value != known[name]}
            if not new:
                return
            for name, value in new.items():
                setattr(row, name, value)
            before = {f"{name}_before": known[name] for name in new if known[name] is not None}
            self._add(session, id, "intake", {**new, **before})

    def notified(self, id: str, recipient: str, how: str) -> None:
        """Put on record that a recipient of the models was told (GDPR Art. 19)."""
        how = checked_text(how, "How the recipient was told")
        self._record(id, "notice", {"recipient": recipient, "how": how})

    def issued(self, id: str, certificate: str, content: bytes) -> None:
        """Put on record that a certificate was signed by the operator, and its hash."""
        body = {"certificate": certificate, "sha256": hashlib.sha256(content).hexdigest()}
        self._record(id, "certificate", body)

    def countersigned(self, id: str, certificate: str, content: bytes) -> None:
        """Put on record that it came back with the privacy officer's signature, and its hash."""
        body = {"certificate": certificate, "sha256": hashlib.sha256(content).hexdigest()}
        self._record(id, "countersigned", body)

    def acts(self, id: str, *kinds: ActKind) -> list[WithdrawalAct]:
        """What was done about it, oldest first.

        Raises
        ------
        WithdrawalError
            If there is no such withdrawal.
        """
        self._register.get(id)
        return self._acts.of(id, *kinds)

    # ---- inside ---------------------------------------------------------------------------------------

    def _decide(
        self,
        id_: str,
        new: WithdrawalState,
        reason: str,
        act: tuple[ActKind, Mapping[str, object]] | None = None,
    ) -> WithdrawalRecord:
        reason = checked_text(reason, "The reason")
        with self._state.session() as session:
            check_clock(session, self._now())
            before = WithdrawalState(self._row(session, id_).state)
            if before is new and act is None:
                self._check_same(session, id_, new, reason)
            record = self._register.advance(id_, new, note=reason, actor=self._actor, session=session)
            if act is not None and before is new:
                self._add_new(session, id_, *act)
            elif act is not None:
                self._add(session, id_, *act)
            return record

    def _check_same(self, session: Session, id_: str, state: WithdrawalState, reason: str) -> None:
        """Refuse a decision that was taken before for another reason: it would be dropped."""
        events = self._register.events(id_, session=session)
        taken = [event for event in events if event.new_state is state][-1]
        if taken.note != reason:
            raise WithdrawalError(
                f"Withdrawal {id_} is {state.value} already, since {taken.at:%Y-%m-%d}, by {taken.actor}, "
                f"with the reason: {taken.note}. It was not decided again.",
                f"To put another reason on record: `reconsent withdrawals note {id_}`.",
            )

    def _add_new(self, session: Session, id_: str, kind: ActKind, body: Mapping[str, object]) -> None:
        """Add an act, unless the newest of its kind says the same."""
        known = self._acts.of(id_, kind, session=session)
        if not known or dict(known[-1].body) != body:
            self._add(session, id_, kind, body)

    def _record(self, id_: str, kind: ActKind, body: Mapping[str, object]) -> None:
        with self._state.session() as session:
            self._row(session, id_)
            self._add(session, id_, kind, body)

    def _add(self, session: Session, id_: str, kind: ActKind, body: Mapping[str, object]) -> None:
        check_clock(session, self._now())
        self._acts.add(id_, kind, body, at=self._now(), actor=self._actor, session=session)

    def _open(self, session: Session, id_: str) -> WithdrawalRow:
        row = self._row(session, id_)
        if WithdrawalState(row.state).closed:
            raise WithdrawalError(
                f"Withdrawal {id_} is closed: it is {row.state}.", "Only notes and notices can be added."
            )
        return row

    def _row(self, session: Session, id_: str) -> WithdrawalRow:
        self._register.get(id_, session=session)
        query = select(WithdrawalRow).where(WithdrawalRow.id == id_).with_for_update()
        return session.scalars(query).one()
