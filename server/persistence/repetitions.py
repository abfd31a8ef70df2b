"""What a repeated request says differently from the first, which stands."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from reconsent.errors import WithdrawalError
from server.persistence.tables import WithdrawalActRow, WithdrawalRow
from server.persistence.withdrawal_records import WithdrawalRecord, record_of
from unlearning.intake import NAMES
from unlearning.request import PATIENTS_ONLY, Ground, RequestDetails, time_zone
from unlearning.withdrawal import WithdrawalState, deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """A request that an open withdrawal answers.

    Attributes
    ----------
    sites, reason, requested_by, cooperating
        As of :meth:`server.persistence.Withdrawals.file`.
    asked
        The rest, checked.
    """

    sites: Sequence[str]
    reason: str
    requested_by: str
    cooperating: bool
    asked: RequestDetails

    def differs(self, first: WithdrawalRecord) -> dict[str, tuple[Any, Any]]:
        """What it says differently: by name, its own word and that of the first.

        What it leaves out it does not contradict: ground, owner, number, time of receipt, and how it came in.
        """
        asked, known = self.asked, first.intake.table
        ground = None if asked.ground is Ground.UNSTATED else asked.ground.value
        both: dict[str, tuple[Any, Any]] = {
            "sites": (sorted(set(self.sites)), sorted(first.sites)),
            "reason": (self.reason, first.reason),
            "requested_by": (self.requested_by, first.requested_by),
            "request_id": (asked.request_id or first.request_id, first.request_id),
            "ground": (ground or first.ground.value, first.ground.value),
            "scope": (asked.scope, first.scope),
            "patients": (asked.patients, first.patients),
            "received_at": (asked.received_at or first.received_at, first.received_at),
            "owner": (asked.owner or first.owner, first.owner),
            "cooperating": (self.cooperating, first.cooperating),
            **{name: (value, known[name]) for name, value in asked.intake.stated.items()},
        }
        return {name: (again, before) for name, (again, before) in both.items() if again != before}

    def due(self, first: WithdrawalRecord) -> dt.datetime | None:
        """When it would have to be answered, if it was received before the first; ``None`` if it was not."""
        received = self.asked.received_at
        if received is None or received >= first.received_at:
            return None
        extended = first.extended_at is not None
        return deadline(received, extended=extended, zone=time_zone(first.zone))

    def body(self, first: WithdrawalRecord) -> dict[str, Any]:
        """Of the act that keeps it with the first: who, why, number, and whatever it says differently."""
        differing = {name: again for name, (again, _) in self.differs(first).items()}
        body = {
            **differing,
            "reason": self.reason,
            "requested_by": self.requested_by,
            "request_id": self.asked.request_id,
            **self.asked.intake.stated,
        }
        if "received_at" in differing:
            body["received_at"] = differing["received_at"].isoformat()
        if (due := self.due(first)) is not None:
            body["would_be_due"] = due.isoformat()
        return body

    def words(self, first: WithdrawalRecord) -> list[str]:
        """For whoever files it: what differs, that the first stands, and what to do to change that."""
        differing = self.differs(first)
        if not differing:
            return []
        zone = time_zone(first.zone)
        said = [f"{name.replace('_', ' ')}: {_shown(again, zone)} (first: {_shown(before, zone)})"
                for name, (again, before) in differing.items()]  # fmt: skip
        found = [
            f"The first request, {first.id}, stands as it is. What this one says differently is on record "
            f"with it and changes nothing: {'; '.join(said)}."
        ]
        if (due := self.due(first)) is not None:
            found.append(
                f"This request was received before the first: by it the answer would be due on "
                f"{_shown(due, zone)}. The deadline on record stays {_shown(first.due_at, zone)}; answer by "
                "whichever is earlier."
            )
        if differing.keys() & {"owner", *NAMES}:
            found.append(
                f"Owner, and how it came in, are changed with `reconsent withdrawals note {first.id}`."
            )
        if differing.keys() - {"owner", "request_id", "received_at", *NAMES}:
            found.append(
                f"If the first shall say more than it does: `reconsent withdrawals cancel {first.id}`, then "
                "file one request that says all of it, under a new number, and with --received-at."
            )
        return found


def answered_under(session: Session, number: str) -> tuple[str, list[str] | None] | None:
    """The withdrawal that answered a repetition with this number, and the sites that repetition named.

    The sites are ``None`` if they were those of the withdrawal.
    """
    query = select(WithdrawalActRow).where(
        WithdrawalActRow.kind == "repeated", WithdrawalActRow.body["request_id"].as_string() == number
    )
    row = session.scalar(query.order_by(WithdrawalActRow.number).limit(1))
    return None if row is None else (row.withdrawal, row.body.get("sites"))


def _shown(value: Any, zone: dt.tzinfo) -> str:
    if isinstance(value, dt.datetime):
        return f"{value.astimezone(zone):%Y-%m-%d %H:%M %Z}"
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not said" if value is None else str(value)


def refuse_other_scope(row: WithdrawalRow, asked: RequestDetails) -> None:
    """Let nobody who withdraws a site be answered by what some of its patients asked under that number.

    Raises
    ------
    WithdrawalError
        If one of the two is about patients whose site stays and the other is not, or about as many.
    """
    if (row.scope == PATIENTS_ONLY) == (asked.scope == PATIENTS_ONLY) and (
        asked.scope != PATIENTS_ONLY or row.patients == asked.patients
    ):
        return
    raise WithdrawalError(
        f"The request number {row.request_id} belongs to withdrawal {row.id}, which is about "
        f"{record_of(row).whom}.",
        "Give the new request a number of its own.",
    )


def same_number(
    row: WithdrawalRow, names: tuple[str, ...], number: str, before: Sequence[str]
) -> WithdrawalRow:
    """The withdrawal that was filed or repeated under a number, if the request is that one and still open.

    ``before`` are the sites that the request with this number named.
    """
    if tuple(before) != names:
        raise WithdrawalError(
            f"The request number {number} belongs to withdrawal {row.id} of {', '.join(row.sites)}.",
            "Give the new request a number of its own.",
        )
    if WithdrawalState(row.state).closed:
        raise WithdrawalError(
            f"Request {number} was filed before, as {row.id}, and is {row.state}: this is a replay.",
            "If the site really asks again, file it under a new number.",
        )
    return row
