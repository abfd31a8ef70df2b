"""The life of a withdrawal: its states, the closed table of transitions, and its deadline.

::

    received ──> restricted ──> unlearning ──> verifying ──> propagating ──> completed
                     │               ^             │              ^
                     │               └─────────────┘              │
                     └────────────────────────────────────────────┘

A withdrawal may go back from verification to unlearning, but none does so by itself: a figure beyond its
limit is put on record and lowers what the certificate claims, and does not hold up the erasure. A withdrawal
that changes no model (the site leaves, its contributions are destroyed, the model stays under another legal
basis) goes from *restricted* straight to *propagating*. Until propagation starts nothing has been destroyed,
so until then a withdrawal may still be cancelled by who asked, refused, or put on legal hold; afterwards it
can only be completed. *failed* remembers the state it failed in, and is resumed there.
"""

from __future__ import annotations

import datetime as dt
from enum import StrEnum

from dateutil.relativedelta import relativedelta

from reconsent.errors import WithdrawalError

RESPONSE_MONTHS = 1
"""GDPR Art. 12(3): inform on the action taken within one month of receipt."""

EXTENSION_MONTHS = 2
"""GDPR Art. 12(3): may be extended by two further months where necessary."""


class WithdrawalState(StrEnum):
    """Where a withdrawal stands."""

    RECEIVED = "received"
    RESTRICTED = "restricted"
    UNLEARNING = "unlearning"
    VERIFYING = "verifying"
    PROPAGATING = "propagating"
    COMPLETED = "completed"
    REFUSED = "refused"
    LEGAL_HOLD = "legal_hold"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def closed(self) -> bool:
        """Whether nothing more can happen to the withdrawal."""
        return not TRANSITIONS[self]

    @property
    def resumable(self) -> bool:
        """Whether a withdrawal can fail in this state and be resumed there."""
        return WithdrawalState.FAILED in TRANSITIONS[self]


_S = WithdrawalState
_SIDE_EXITS = frozenset({_S.REFUSED, _S.LEGAL_HOLD, _S.CANCELLED})

TRANSITIONS: dict[WithdrawalState, frozenset[WithdrawalState]] = {
    _S.RECEIVED: frozenset({_S.RESTRICTED, _S.FAILED}) | _SIDE_EXITS,
    _S.RESTRICTED: frozenset({_S.UNLEARNING, _S.PROPAGATING, _S.FAILED}) | _SIDE_EXITS,
    _S.UNLEARNING: frozenset({_S.VERIFYING, _S.FAILED}) | _SIDE_EXITS,
    _S.VERIFYING: frozenset({_S.UNLEARNING, _S.PROPAGATING, _S.FAILED}) | _SIDE_EXITS,
    _S.PROPAGATING: frozenset({_S.COMPLETED, _S.FAILED}),
    _S.LEGAL_HOLD: frozenset({_S.RESTRICTED, _S.REFUSED, _S.CANCELLED}),
    # Failed has no fixed successors: they depend on where it failed, see allowed_from.
    _S.FAILED: frozenset({_S.RECEIVED, _S.RESTRICTED, _S.UNLEARNING, _S.VERIFYING, _S.PROPAGATING})
    | _SIDE_EXITS,
    _S.COMPLETED: frozenset(),
    _S.REFUSED: frozenset(),
    _S.CANCELLED: frozenset(),
}
"""What may follow what. Anything else is refused by :func:`check_transition`."""


def allowed_from(
    state: WithdrawalState, *, failed_in: WithdrawalState | None = None
) -> frozenset[WithdrawalState]:
    """The states that may follow ``state``.

    Parameters
    ----------
    state
        Where the withdrawal stands.
    failed_in
        For a failed one, the state it failed in: it is resumed there and nowhere else, or leaves by a side
        exit that was open there. ``None`` if that is not known: then every state that can fail is allowed.
    """
    if state is not WithdrawalState.FAILED or failed_in is None:
        return TRANSITIONS[state]
    return frozenset({failed_in}) | (TRANSITIONS[failed_in] & _SIDE_EXITS)


def check_transition(
    old: WithdrawalState, new: WithdrawalState, *, failed_in: WithdrawalState | None = None
) -> None:
    """Refuse a transition that the table does not allow.

    Parameters
    ----------
    old, new
        Where the withdrawal stands, and where it is to go.
    failed_in
        For a failed withdrawal, the state it failed in.

    Raises
    ------
    WithdrawalError
        If ``new`` may not follow ``old``; the message names what may.
    """
    allowed = allowed_from(old, failed_in=failed_in)
    if new in allowed:
        return
    where = f"'{old}' (failed while '{failed_in}')" if failed_in and old is _S.FAILED else f"'{old}'"
    problem = f"A withdrawal cannot go from {where} to '{new}'."
    if not allowed:
        raise WithdrawalError(problem, f"'{old}' is final; file a new withdrawal instead.")
    names = ", ".join(f"'{state}'" for state in WithdrawalState if state in allowed)
    raise WithdrawalError(problem, f"Allowed from there: {names}.")


def add_months(moment: dt.datetime, months: int) -> dt.datetime:
    """The same day and time ``months`` calendar months later; the month's last day if it has no such day.

    31 January plus one month is 28 February (29 in a leap year), not 2 or 3 March: a period in months
    ends on the last day of the month where the date does not occur (Regulation (EEC, Euratom) 1182/71,
    Art. 3(2)(c)).
    """
    return moment + relativedelta(months=months)


def deadline(received: dt.datetime, *, extended: bool = False, zone: dt.tzinfo = dt.UTC) -> dt.datetime:
    """When the requester must have been answered at the latest, in UTC.

    Parameters
    ----------
    received
        When the request was received; must carry a time zone.
    extended
        Whether the period was extended by two months. Both periods are counted from receipt.
    zone
        Where the months are counted: what is 1 March, 00:30 in Berlin is still February in UTC, and due
        three days earlier. The time of day stays that of the zone, through a change to summer time too.

    Raises
    ------
    ValueError
        If ``received`` has no time zone.
    """
    if received.tzinfo is None:
        raise ValueError(f"{received!r} has no time zone")
    months = RESPONSE_MONTHS + (EXTENSION_MONTHS if extended else 0)
    return add_months(received.astimezone(zone), months).astimezone(dt.UTC)
