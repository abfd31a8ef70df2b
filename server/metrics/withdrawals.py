"""Metrics of withdrawals: where they stand, when they are due, and how long each state took."""

from __future__ import annotations

import datetime as dt
from collections import Counter

from sqlalchemy import select

from reconsent.exposition import DurationCounts, Metric, Samples, Topic
from reconsent.exposition.histogram import LONG_BOUNDS
from server.metrics.view import View
from server.persistence import WithdrawalRecord, Withdrawals
from server.persistence.tables import WithdrawalEventRow
from server.withdrawal_view import held_until
from unlearning.request import time_zone
from unlearning.withdrawal import WithdrawalState

STATES = Metric("reconsent_withdrawals", "gauge", "Withdrawals by the state they are in", ("state",))
ENTERED = Metric(
    "reconsent_withdrawal_transitions_total",
    "counter",
    "How often a withdrawal entered a state",
    ("state",),
)
STAGE = Metric(
    "reconsent_withdrawal_state_duration_seconds",
    "histogram",
    "How long withdrawals stayed in a state before they left it",
    ("state",),
    "for states that were left",
)
STATE = Metric(
    "reconsent_withdrawal_state",
    "gauge",
    "1 for the state of each open withdrawal",
    ("withdrawal", "state"),
    "for open withdrawals",
)
RECEIVED = Metric(
    "reconsent_withdrawal_received_timestamp_seconds",
    "gauge",
    "When an open withdrawal was received, in seconds since 1970",
    ("withdrawal",),
    "as above",
)
DEADLINE = Metric(
    "reconsent_withdrawal_deadline_timestamp_seconds",
    "gauge",
    "When the requester of an open withdrawal must have been answered, in seconds since 1970; the seconds "
    "left are the recording rule withdrawal:reconsent_withdrawal_time_left:seconds",
    ("withdrawal",),
    "for open withdrawals, except during a legal hold, which is an answer",
)
HOLD_UNTIL = Metric(
    "reconsent_withdrawal_hold_until_timestamp_seconds",
    "gauge",
    "When the day begins on which a legal hold shall be looked at again, in the withdrawal's time zone, in "
    "seconds since 1970",
    ("withdrawal",),
    "during a legal hold for which a day was given",
)
STEP_AT = Metric(
    "reconsent_withdrawal_last_step_timestamp_seconds",
    "gauge",
    "When an open withdrawal entered its state, in seconds since 1970",
    ("withdrawal",),
    "for open withdrawals",
)

TOPIC = Topic("Withdrawals", (STATES, ENTERED, STAGE, STATE, RECEIVED, DEADLINE, HOLD_UNTIL, STEP_AT))


class WithdrawalMetrics:
    """Reads the register and its events."""

    def collect(self, view: View, samples: Samples) -> None:
        """Fill in this topic's metrics."""
        records = Withdrawals(view.state).all(session=view.session)
        states = Counter(record.state for record in records)
        entered: Counter[str] = Counter()
        spent: dict[str, DurationCounts] = {}
        since: dict[str, tuple[str, dt.datetime]] = {}
        row = WithdrawalEventRow
        for id_, at, state in view.session.execute(
            select(row.withdrawal, row.at, row.new_state).order_by(row.number)
        ):
            entered[state] += 1
            if id_ in since:
                former, began = since[id_]
                counts = spent.setdefault(former, DurationCounts(LONG_BOUNDS))
                counts.observe((at - began).total_seconds())
            since[id_] = state, at
        for state in WithdrawalState:
            samples.set(STATES, states[state], state.value)
            samples.set(ENTERED, entered[state.value], state.value)
        for name, counts in sorted(spent.items()):
            samples.distribution(STAGE, counts, name)
        for record in records:
            if not record.state.closed:
                self._open(samples, record, since[record.id][1])
                if until := held_until(view.state, record, session=view.session):
                    day = dt.datetime.fromisoformat(until).replace(tzinfo=time_zone(record.zone))
                    samples.set(HOLD_UNTIL, day.timestamp(), record.id)

    @staticmethod
    def _open(samples: Samples, record: WithdrawalRecord, step: dt.datetime) -> None:
        samples.set(STATE, 1, record.id, record.state.value)
        samples.set(RECEIVED, record.received_at.timestamp(), record.id)
        if record.awaits_answer:
            samples.set(DEADLINE, record.due_at.timestamp(), record.id)
        samples.set(STEP_AT, step.timestamp(), record.id)
