"""The closed table of a withdrawal's transitions, and its deadline."""

from __future__ import annotations

import datetime as dt
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconsent.errors import WithdrawalError
from unlearning.withdrawal import (
    TRANSITIONS,
    WithdrawalState,
    add_months,
    allowed_from,
    check_transition,
    deadline,
)

S = WithdrawalState
MOMENTS = st.datetimes(
    min_value=dt.datetime(2000, 1, 1), max_value=dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC)
)


class WithdrawalLife(RuleBasedStateMachine):
    """Tries every transition in any order and follows those that are allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.path = [S.RECEIVED]
        self.failed_in: WithdrawalState | None = None

    @rule(new=st.sampled_from(WithdrawalState))
    def attempt(self, new: WithdrawalState) -> None:
        """Take the transition, or be refused with the names of those that are allowed."""
        old = self.path[-1]
        allowed = allowed_from(old, failed_in=self.failed_in)
        try:
            check_transition(old, new, failed_in=self.failed_in)
        except WithdrawalError as error:
            assert new not in allowed
            named = set(re.findall(r"'(\w+)'", error.remedy))
            assert named == ({state.value for state in allowed} or {old.value})
            return
        assert new in allowed
        if old is S.FAILED and new not in (S.REFUSED, S.LEGAL_HOLD, S.CANCELLED):
            assert new is self.failed_in, "resumed elsewhere than where it failed"
        self.failed_in = old if new is S.FAILED else None
        self.path.append(new)

    @precondition(lambda self: self.path[-1] in (S.COMPLETED, S.REFUSED, S.CANCELLED))
    @rule(new=st.sampled_from(WithdrawalState))
    def nothing_follows_the_end(self, new: WithdrawalState) -> None:
        """A closed withdrawal refuses everything."""
        with pytest.raises(WithdrawalError, match="final"):
            check_transition(self.path[-1], new)

    @invariant()
    def barred_before_anything_is_done(self) -> None:
        """No model is touched and nothing erased before the site is restricted."""
        work = [i for i, s in enumerate(self.path) if s in (S.UNLEARNING, S.VERIFYING, S.PROPAGATING)]
        assert not work or S.RESTRICTED in self.path[: work[0]]

    @invariant()
    def completed_only_after_propagation(self) -> None:
        """Completed means that revoking and erasing was the last thing done."""
        if self.path[-1] is S.COMPLETED:
            assert self.path[-2] is S.PROPAGATING

    @invariant()
    def no_way_back_once_erasing(self) -> None:
        """After propagation began only completion (through failures) is left."""
        if S.PROPAGATING in self.path:
            after = self.path[self.path.index(S.PROPAGATING) :]
            assert set(after) <= {S.PROPAGATING, S.FAILED, S.COMPLETED}

    @invariant()
    def unverified_models_do_not_propagate(self) -> None:
        """An unlearning is verified before its result is propagated, whatever failed in between."""
        steps = [s for s in self.path if s is not S.FAILED]
        for before, after in itertools.pairwise(steps):
            assert (before, after) != (S.UNLEARNING, S.PROPAGATING)


TestWithdrawalLife = WithdrawalLife.TestCase
TestWithdrawalLife.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    """The table is closed: it knows every state, and each is reachable from the first."""
    assert set(TRANSITIONS) == set(WithdrawalState)
    reached, frontier = {S.RECEIVED}, [S.RECEIVED]
    while frontier:
        for state in TRANSITIONS[frontier.pop()] - reached:
            reached.add(state)
            frontier.append(state)
    assert reached == set(WithdrawalState)


def test_the_designed_way_is_allowed() -> None:
    """The way from receipt to completion, with one failed verification, is allowed."""
    way = [
        S.RECEIVED, S.RESTRICTED, S.UNLEARNING, S.VERIFYING,
        S.UNLEARNING, S.VERIFYING, S.PROPAGATING, S.COMPLETED,
    ]  # fmt: skip
    for old, new in itertools.pairwise(way):
        check_transition(old, new)


def test_only_final_states_are_closed() -> None:
    """Closed are completed, refused and cancelled; a failed or held withdrawal is not."""
    assert {state for state in WithdrawalState if state.closed} == {S.COMPLETED, S.REFUSED, S.CANCELLED}
    assert {state for state in WithdrawalState if state.resumable} == {
        S.RECEIVED, S.RESTRICTED, S.UNLEARNING, S.VERIFYING, S.PROPAGATING,
    }  # fmt: skip


def test_failed_says_where_it_is_resumed() -> None:
    """A failed withdrawal refused elsewhere names the state it failed in as the way on."""
    with pytest.raises(WithdrawalError, match=r"failed while 'propagating'.*Allowed.*: 'propagating'\."):
        check_transition(S.FAILED, S.RESTRICTED, failed_in=S.PROPAGATING)


@pytest.mark.parametrize(
    ("received", "months", "due"),
    [
        ((2027, 1, 31), 1, (2027, 2, 28)),
        ((2028, 1, 31), 1, (2028, 2, 29)),
        ((2027, 1, 31), 3, (2027, 4, 30)),
        ((2027, 2, 28), 1, (2027, 3, 28)),
        ((2027, 8, 31), 1, (2027, 9, 30)),
        ((2027, 12, 15), 1, (2028, 1, 15)),
        ((2027, 11, 30), 3, (2028, 2, 29)),
        ((2100, 1, 29), 1, (2100, 2, 28)),
    ],
)
def test_months_are_calendar_months(
    received: tuple[int, int, int], months: int, due: tuple[int, int, int]
) -> None:
    """A month later is the same day, or the month's last where there is no such day."""
    time = dt.time(13, 5, 7, 11, tzinfo=dt.UTC)
    assert add_months(dt.datetime.combine(dt.date(*received), time), months) == dt.datetime.combine(
        dt.date(*due), time
    )


@given(MOMENTS, st.integers(0, 40))
def test_months_never_skip_one(moment: dt.datetime, months: int) -> None:
    """The result lies in the month that is ``months`` further, never later than the same day."""
    later = add_months(moment, months)
    assert (later.year - moment.year) * 12 + later.month - moment.month == months
    assert later.day <= moment.day
    assert later.day == moment.day or (later + dt.timedelta(days=1)).day == 1


def test_deadline_is_counted_in_utc() -> None:
    """A request of 1 March, 00:30 in Berlin, was received in February UTC and is due in March."""
    berlin = dt.timezone(dt.timedelta(hours=1))
    due = deadline(dt.datetime(2027, 3, 1, 0, 30, tzinfo=berlin))
    assert due == dt.datetime(2027, 3, 28, 23, 30, tzinfo=dt.UTC)
    assert due.tzinfo is dt.UTC


def test_extension_is_counted_from_receipt() -> None:
    """31 January extended is due on 30 April, not two months after 28 February."""
    received = dt.datetime(2027, 1, 31, tzinfo=dt.UTC)
    assert deadline(received, extended=True) == dt.datetime(2027, 4, 30, tzinfo=dt.UTC)


def test_deadline_needs_a_time_zone() -> None:
    """A naive moment is refused rather than guessed to be UTC."""
    with pytest.raises(ValueError, match="no time zone"):
        deadline(dt.datetime(2027, 1, 31))
