"""Files a withdrawal at a deployed consortium: the one way, for the command line and for the console."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from cli.deployment import Deployment
from deploy.admission import unregister_revoked
from reconsent.errors import ConfigError, DeployError, WithdrawalError
from server.persistence import (
    Enrolments,
    PrivacyDesk,
    Roster,
    StateDirectory,
    WithdrawalRecord,
    Withdrawals,
)
from server.persistence.repetitions import Repetition
from strategies.methods import check_method
from unlearning.request import Attachment, RequestDetails, time_zone


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRequest:
    """A withdrawal as it is asked for.

    Attributes
    ----------
    sites, reason, requested_by, cooperating, details
        As of :meth:`server.persistence.Withdrawals.file`.
    filed_by
        Who files it, for the requester or for themselves: documents and notes are theirs.
    documents, notes
        What is put on record with it.
    """

    sites: tuple[str, ...]
    reason: str
    requested_by: str
    filed_by: str
    details: RequestDetails
    cooperating: bool = False
    documents: tuple[Attachment, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """What became of a request.

    Attributes
    ----------
    record
        The withdrawal that answers it.
    repeated
        It was filed before; nothing was filed twice.
    differing
        Of a repeated request: what it says differently, that the first stands, and how to change that, in
        words; empty if it says the same.
    running
        Id of the run that will carry it out; ``None`` if none is under way.
    keys
        What becomes of the sites' keys, in words.
    lacking
        What the configured method needs and does not find, in words; empty if nothing.
    """

    record: WithdrawalRecord
    repeated: bool
    differing: tuple[str, ...]
    running: int | None
    keys: str
    lacking: str


Also = Callable[[StateDirectory, Session, WithdrawalRecord, bool], None]
"""Something to be done in the transaction of the filing; told whether the request was a repeated one."""


def file_withdrawal(deployment: Deployment, request: WithdrawalRequest, also: Also | None = None) -> Filed:
    """Bar the sites, keep the request with its deadline, refuse the sites' keys; all or nothing.

    Raises
    ------
    WithdrawalError
        As of :meth:`server.persistence.Withdrawals.file`.
    StateError
        If the state cannot be written; nothing was filed then.
    """
    with deployment.writing() as opened:
        roster, register = Roster(opened), Withdrawals(opened)
        with opened.session() as session:
            for site in deployment.consortium.sites:
                roster.declare(site.name, site.organ, session=session)
            known = {record.id for record in register.all(session=session)}
            record = register.file(
                request.sites,
                reason=request.reason,
                requested_by=request.requested_by,
                restrict=True,
                cooperating=request.cooperating,
                details=request.details,
                session=session,
            )
            desk = PrivacyDesk(opened, request.filed_by)
            for document in request.documents:
                desk.attach(record.id, document)
            noted = {act.body["text"] for act in desk.acts(record.id, "note")}
            for text in dict.fromkeys(text.strip() for text in request.notes):
                # A request that is sent again brings its notes again.
                if text not in noted:
                    desk.note(record.id, text)
            # A cooperating site is barred from every round, but must still be heard: its key goes at the end.
            for name in () if record.cooperating or record.site_stays else record.sites:
                Enrolments(opened).revoke(name, f"withdrawal {record.id}", session=session)
            if also is not None:
                also(opened, session, record, record.id in known)
        keys, running = "The keys of the sites are refused from now on.", None
        try:
            unregister_revoked(deployment.control, opened)
            running = deployment.running()
        except DeployError as error:
            keys = f"Their keys are refused once the SuperLink can be told: {error.problem}"
        if record.site_stays:
            keys = "The site stays, and its key is good."
        elif record.cooperating:
            keys = "The sites answer for their part of the unlearning only; then their keys are refused."
    return Filed(
        record=record,
        repeated=record.id in known,
        differing=_differing(request, record) if record.id in known else (),
        running=running,
        keys=keys,
        lacking=_lacking(deployment, record),
    )


def _differing(request: WithdrawalRequest, first: WithdrawalRecord) -> tuple[str, ...]:
    again = Repetition(
        sites=request.sites,
        reason=request.reason.strip(),
        requested_by=request.requested_by.strip(),
        cooperating=request.cooperating,
        asked=request.details.checked(dt.datetime.now(dt.UTC)),
    )
    return tuple(again.words(first))


def moment_of(text: str | None, zone: str) -> dt.datetime | None:
    """A moment as somebody typed it; without a time zone, in that of the consortium.

    Raises
    ------
    WithdrawalError
        If it is none.
    """
    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise WithdrawalError(
            f"'{text}' is no moment.", "Write it as 2027-01-31T09:30 or 2027-01-31."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=time_zone(zone))


def _lacking(deployment: Deployment, record: WithdrawalRecord) -> str:
    """What the configured method needs and does not find, in words; a request is accepted all the same."""
    unlearning = deployment.consortium.unlearning
    try:
        check_method(
            unlearning.method,
            unlearning.settings,
            deployment.consortium.contributions,
            cooperating=record.cooperating,
            patients=record.site_stays,
        )
    except ConfigError as error:
        return str(error)
    return ""
