"""A withdrawal as JSON values: for the command line, certificates, and whoever else asks."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy.orm import Session

from server.persistence import StateDirectory, WithdrawalActs, WithdrawalRecord, Withdrawals
from server.recipients import recipients_of
from unlearning.request import time_zone
from unlearning.withdrawal import WithdrawalState


def held_until(
    state: StateDirectory, record: WithdrawalRecord, *, session: Session | None = None
) -> str | None:
    """The day (ISO 8601) on which a withdrawal on legal hold shall be looked at again, if one is set."""
    if record.state is not WithdrawalState.LEGAL_HOLD:
        return None
    holds = WithdrawalActs(state).of(record.id, "hold", session=session)
    return holds[-1].body.get("until") if holds else None


def summary_of(state: StateDirectory, record: WithdrawalRecord, now: dt.datetime) -> dict[str, Any]:
    """What a list shows of a withdrawal.

    Returns
    -------
    ``id``, ``sites``, ``state``, ``ground``, ``scope``, ``patients``, ``reason``, ``requested_by``,
    ``request_id``, ``owner``, ``channel``, ``agreement``, ``requester_role``, ``identity_check`` (each null
    where nobody has said it), ``simulated``, ``in_part``; ``received_at``, ``filed_at``, ``due_at``,
    ``extended_at``, ``restricted_at``, ``closed_at`` (ISO 8601, UTC, or null); ``held_until`` (the day on
    which a legal hold shall be looked at again, or null); ``due_local`` (in ``time_zone``);
    ``days_left`` (negative if overdue; null if closed), ``overdue``, ``late``.
    """

    def moment(value: dt.datetime | None) -> str | None:
        return None if value is None else value.isoformat()

    return {
        "id": record.id,
        "sites": list(record.sites),
        "state": record.state.value,
        "failed_in": None if record.failed_in is None else record.failed_in.value,
        "ground": record.ground.value,
        "scope": record.scope,
        "patients": record.patients,
        "reason": record.reason,
        "requested_by": record.requested_by,
        "request_id": record.request_id,
        "owner": record.owner,
        **record.intake.table,
        "simulated": record.simulated,
        "in_part": record.in_part,
        "received_at": moment(record.received_at),
        "filed_at": moment(record.filed_at),
        "due_at": moment(record.due_at),
        "due_local": record.due_at.astimezone(time_zone(record.zone)).isoformat(),
        "time_zone": record.zone,
        "extended_at": moment(record.extended_at),
        "restricted_at": moment(record.restricted_at),
        "closed_at": moment(record.closed_at),
        "held_until": held_until(state, record),
        "days_left": None if record.state.closed else (record.due_at - now) // dt.timedelta(days=1),
        "overdue": record.overdue(now),
        "late": record.late,
    }


def details_of(state: StateDirectory, record: WithdrawalRecord, now: dt.datetime) -> dict[str, Any]:
    """The summary, and ``events``, ``acts`` and ``recipients``.

    Returns
    -------
    As :func:`summary_of`; ``events`` with ``at``, ``actor``, ``from``, ``to``, ``note``; ``acts`` with
    ``at``, ``actor``, ``kind`` and the fields of that kind; ``recipients`` with ``recipient``,
    ``versions``, ``first_at``, ``last_at``, ``notified_at``, ``how``.
    """
    events = Withdrawals(state).events(record.id)
    return {
        **summary_of(state, record, now),
        "events": [
            {
                "at": event.at.isoformat(),
                "actor": event.actor,
                "from": None if event.old_state is None else event.old_state.value,
                "to": event.new_state.value,
                "note": event.note,
            }
            for event in events
        ],
        "acts": [
            {"at": act.at.isoformat(), "actor": act.actor, "kind": act.kind, **act.body}
            for act in WithdrawalActs(state).of(record.id)
        ],
        "recipients": recipients_shown(state, record),
    }


def recipients_shown(state: StateDirectory, record: WithdrawalRecord) -> list[dict[str, Any]]:
    """The recipients of the models a withdrawal revokes, as JSON values."""
    return [
        {
            "recipient": recipient.name,
            "versions": list(recipient.versions),
            "first_at": recipient.first_at.isoformat(),
            "last_at": recipient.last_at.isoformat(),
            "notified_at": None if recipient.notified_at is None else recipient.notified_at.isoformat(),
            "how": recipient.how,
        }
        for recipient in recipients_of(state, record)
    ]
