"""What the entries about withdrawals commit to: a whole step or act, its text and names included."""

from __future__ import annotations

import datetime as dt
from typing import Any

from server.persistence.tables import WithdrawalActRow, WithdrawalEventRow, WithdrawalRow
from unlearning.ledger.commitments import commitment


def act_commitment(row: WithdrawalActRow) -> str:
    """Of an act that has a salt."""
    return commitment(
        str(row.salt),
        {
            "withdrawal": row.withdrawal,
            "at": _moment(row.at),
            "actor": row.actor,
            "act": row.kind,
            "body": row.body,
        },
    )


def event_commitment(row: WithdrawalEventRow, request: WithdrawalRow) -> str:
    """Of a step that has a salt; of the first one, what never changes of the request as well."""
    content: dict[str, Any] = {
        "withdrawal": row.withdrawal,
        "at": _moment(row.at),
        "actor": row.actor,
        "from": row.old_state,
        "to": row.new_state,
        "note": row.note,
    }
    if row.old_state is None:
        content["request"] = {
            "reason": request.reason,
            "requested_by": request.requested_by,
            "request_id": request.request_id,
            "patients": request.patients,
            "time_zone": request.time_zone,
            "at_round": request.at_round,
            "cooperating": bool(request.cooperating),
        }
    return commitment(str(row.salt), content)


def committed(row: WithdrawalActRow | WithdrawalEventRow, digest: str) -> dict[str, Any]:
    """What an entry says of the row it commits to."""
    return {"row": row.number, "commitment": digest}


def _moment(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat()
