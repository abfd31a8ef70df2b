"""What is known of a withdrawal, and of one step of it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from server.persistence.tables import WithdrawalEventRow, WithdrawalRow
from unlearning.intake import NAMES, Intake
from unlearning.request import PATIENTS_ONLY, Ground
from unlearning.withdrawal import WithdrawalState


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRecord:
    """A withdrawal and where it stands.

    Attributes
    ----------
    id
        ``W-`` date ``-`` six digits.
    sites
        Who leaves, together, by name.
    reason, requested_by, method, at_round
        As filed.
    simulated
        Nobody asked: exercised in a simulation.
    state
        Where it stands.
    failed_in
        For a failed one, the state it is resumed in.
    received_at, due_at
        When whoever is responsible received it, and when the requester must have been answered; UTC.
    restricted_at, extended_at, closed_at
        When the sites were barred, the deadline extended, the withdrawal closed; UTC, or ``None``.
    filed_at
        When the register learned of it, by its own clock.
    ground, scope, patients, owner, zone, request_id, intake
        As in :class:`unlearning.request.RequestDetails`.
    cooperating
        The sites still answer, for their part of the unlearning; otherwise nothing is asked of them.
    in_part
        Granted in part: the site is barred and its contributions are erased, the models stay.
    """

    id: str
    sites: tuple[str, ...]
    reason: str
    requested_by: str
    method: str | None
    at_round: int | None
    simulated: bool
    state: WithdrawalState
    failed_in: WithdrawalState | None
    received_at: dt.datetime
    due_at: dt.datetime
    restricted_at: dt.datetime | None
    extended_at: dt.datetime | None
    closed_at: dt.datetime | None
    filed_at: dt.datetime
    ground: Ground
    scope: str
    patients: int | None
    owner: str | None
    zone: str
    request_id: str | None
    intake: Intake
    in_part: bool
    cooperating: bool

    @property
    def site_stays(self) -> bool:
        """Whether only patients leave: their site is not barred, and what it gave of the others is kept."""
        return self.scope == PATIENTS_ONLY

    @property
    def marks(self) -> tuple[str, ...]:
        """What a model version that has unlearned it says it has forgotten."""
        if not self.site_stays:
            return self.sites
        return tuple(f"patients of {site} ({self.id})" for site in self.sites)

    @property
    def whom(self) -> str:
        """Who leaves, in words."""
        names = ", ".join(self.sites)
        return f"patients of {names} (which stays)" if self.site_stays else names

    @property
    def awaits_answer(self) -> bool:
        """Whether the requester is still to be answered.

        A legal hold is an answer; once it is released, the period is where it was.
        """
        return not self.state.closed and self.state is not WithdrawalState.LEGAL_HOLD

    def overdue(self, now: dt.datetime) -> bool:
        """Whether the requester had to be answered before ``now`` and was not."""
        return self.awaits_answer and now > self.due_at

    @property
    def late(self) -> bool:
        """Whether it was closed after its deadline."""
        return self.closed_at is not None and self.closed_at > self.due_at


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalEvent:
    """One step of a withdrawal.

    Attributes
    ----------
    at
        When, UTC.
    actor
        Who took it.
    old_state, new_state
        From where (``None`` when it was filed) to where.
    note
        Why.
    """

    at: dt.datetime
    actor: str
    old_state: WithdrawalState | None
    new_state: WithdrawalState
    note: str


def intake_of(row: WithdrawalRow) -> Intake:
    """How the request came in that a row describes."""
    return Intake.read(**{name: getattr(row, name) for name in NAMES})


def record_of(row: WithdrawalRow) -> WithdrawalRecord:
    """The withdrawal a row describes."""
    return WithdrawalRecord(
        id=row.id,
        sites=tuple(row.sites),
        reason=row.reason,
        requested_by=row.requested_by,
        method=row.method,
        at_round=row.at_round,
        simulated=row.simulated,
        state=WithdrawalState(row.state),
        failed_in=WithdrawalState(row.failed_in) if row.failed_in else None,
        received_at=row.received_at,
        due_at=row.due_at,
        restricted_at=row.restricted_at,
        extended_at=row.extended_at,
        closed_at=row.closed_at,
        filed_at=row.filed_at or row.received_at,
        ground=Ground(row.ground or Ground.UNSTATED),
        scope=row.scope or "site",
        patients=row.patients,
        owner=row.owner,
        zone=row.time_zone or "UTC",
        request_id=row.request_id,
        intake=intake_of(row),
        in_part=bool(row.in_part),
        cooperating=bool(row.cooperating),
    )


def event_of(row: WithdrawalEventRow) -> WithdrawalEvent:
    """The step a row describes."""
    return WithdrawalEvent(
        at=row.at,
        actor=row.actor,
        old_state=WithdrawalState(row.old_state) if row.old_state else None,
        new_state=WithdrawalState(row.new_state),
        note=row.note,
    )
