"""The register of withdrawals: filing, moving on, deadlines, and events that cannot be changed."""

from __future__ import annotations

import datetime as dt

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from reconsent.errors import WithdrawalError
from server.persistence import Roster, SiteStatus, StateDirectory, WithdrawalRecord, Withdrawals
from unlearning.database import ContributionRow
from unlearning.withdrawal import WithdrawalState as S

START = dt.datetime(2027, 1, 31, 9, 30, tzinfo=dt.UTC)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        """The present moment."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock at the end of January."""
    return Clock()


@pytest.fixture
def register(state: StateDirectory, clock: Clock) -> Withdrawals:
    """A register of a consortium of three sites."""
    roster = Roster(state)
    for node, site in enumerate(("east", "north", "south")):
        roster.enrol(site, node, "knee", 10, round=1)
    return Withdrawals(state, now=clock)


def file(register: Withdrawals, *sites: str, restrict: bool = False) -> WithdrawalRecord:
    """File a plain withdrawal."""
    return register.file(sites, reason="consent withdrawn", requested_by="officer", restrict=restrict)


def statuses(state: StateDirectory) -> dict[str, SiteStatus]:
    """Site to status."""
    return {entry.site: entry.status for entry in Roster(state).all()}


def test_a_filed_withdrawal_is_due_in_a_calendar_month(register: Withdrawals) -> None:
    """Filed on 31 January it is due on 28 February, in UTC, and has one event."""
    record = file(register, "north")
    assert record.state is S.RECEIVED
    assert record.received_at == START
    assert record.due_at == dt.datetime(2027, 2, 28, 9, 30, tzinfo=dt.UTC)
    assert register.get(record.id) == record
    assert register.open() == register.all() == [record]
    (event,) = register.events(record.id)
    assert (event.actor, event.old_state, event.new_state) == ("officer", None, S.RECEIVED)


def test_filing_an_identical_request_returns_the_first(register: Withdrawals, clock: Clock) -> None:
    """Order and repetition of the sites do not matter; nothing is filed twice, and the deadline stays."""
    first = file(register, "north", "east")
    clock.now += dt.timedelta(days=5)
    assert file(register, "east", "north", "east") == first
    assert len(register.all()) == len(register.events(first.id)) == 1


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["nroth"], "no site 'nroth' to withdraw.*Did you mean 'north'"),
        ([], "names no site"),
        (["east", "north", "south"], "Without east, north, south no site would remain"),
        (["south", "north"], "'north' is being withdrawn already, by request W-20270131-"),
    ],
)
def test_impossible_withdrawals_are_refused(register: Withdrawals, sites: list[str], message: str) -> None:
    """Unknown, none, all, and already leaving: each is refused in words, and nothing is filed."""
    file(register, "north") if "already" in message else None
    before = register.all()
    with pytest.raises(WithdrawalError, match=message):
        register.file(sites, reason="other", requested_by="officer")
    assert register.all() == before


def test_the_last_site_cannot_leave_though_others_only_asked(register: Withdrawals) -> None:
    """Sites whose withdrawal is merely received do not count as remaining."""
    file(register, "north")
    file(register, "east")
    with pytest.raises(WithdrawalError, match="Without south no site would remain"):
        file(register, "south")


def test_a_different_request_for_the_same_site_is_not_the_same(register: Withdrawals) -> None:
    """The same site with another method is refused rather than silently merged."""
    file(register, "north")
    with pytest.raises(WithdrawalError, match="being withdrawn already"):
        register.file(["north"], reason="consent withdrawn", requested_by="officer", method="retrain")


def test_restriction_bars_and_freezes_at_once(register: Withdrawals, state: StateDirectory) -> None:
    """The site is barred and its contributions frozen in the transaction of the change of state."""
    with state.session() as session:
        for site in ("north", "south"):
            row = ContributionRow(site=site, round=1, line="main", kind="sum", norm=1.0, weight=0.5)
            session.add(row)
    record = file(register, "north")
    assert statuses(state)["north"] is SiteStatus.ACTIVE
    with pytest.raises(ZeroDivisionError), state.session() as session:
        register.advance(record.id, S.RESTRICTED, note="x", session=session)
        raise ZeroDivisionError
    assert statuses(state)["north"] is SiteStatus.ACTIVE
    assert register.get(record.id).state is S.RECEIVED
    assert len(register.events(record.id)) == 1

    assert register.advance(record.id, S.RESTRICTED, note="plausible").restricted_at == START
    assert statuses(state) == {"east": "active", "north": "restricted", "south": "active"}
    with state.reading() as session:
        frozen = {row.site: row.frozen for row in session.query(ContributionRow)}
    assert frozen == {"north": True, "south": False}


def test_a_request_can_be_restricted_on_receipt(register: Withdrawals, state: StateDirectory) -> None:
    """With ``restrict`` no moment lies between receipt and bar; filing again changes nothing."""
    record = file(register, "north", restrict=True)
    assert record.state is S.RESTRICTED
    assert statuses(state)["north"] is SiteStatus.RESTRICTED
    assert file(register, "north", restrict=True) == record
    assert [event.new_state for event in register.events(record.id)] == [S.RECEIVED, S.RESTRICTED]


def test_the_whole_way_ends_with_the_site_withdrawn(
    register: Withdrawals, state: StateDirectory, clock: Clock
) -> None:
    """Each step is an event, in order; the end is for good and the site cannot be withdrawn again."""
    record = file(register, "north")
    way = [S.RESTRICTED, S.UNLEARNING, S.VERIFYING, S.PROPAGATING, S.COMPLETED]
    for step in way:
        clock.now += dt.timedelta(hours=1)
        register.advance(record.id, step, note=f"to {step}", actor="tester")
    events = register.events(record.id)
    assert [event.new_state for event in events] == [S.RECEIVED, *way]
    assert [event.old_state for event in events] == [None, S.RECEIVED, *way[:-1]]
    assert [event.at - START for event in events] == [dt.timedelta(hours=h) for h in range(6)]
    assert register.get(record.id).closed_at == clock.now
    assert register.open() == []
    assert statuses(state)["north"] is SiteStatus.WITHDRAWN
    with pytest.raises(WithdrawalError, match="'north' has withdrawn already"):
        file(register, "north")
    with pytest.raises(WithdrawalError, match="'completed' is final"):
        register.advance(record.id, S.CANCELLED, note="too late")


def test_advancing_to_where_it_stands_changes_nothing(register: Withdrawals) -> None:
    """A step that is repeated after a crash leaves one event."""
    record = file(register, "north")
    once = register.advance(record.id, S.RESTRICTED, note="first")
    assert register.advance(record.id, S.RESTRICTED, note="again") == once
    assert len(register.events(record.id)) == 2


def test_a_failure_is_resumed_where_it_happened(register: Withdrawals) -> None:
    """A withdrawal that failed in unlearning goes on there, and forgets the failure."""
    record = file(register, "north", restrict=True)
    register.advance(record.id, S.UNLEARNING, note="begin")
    failed = register.advance(record.id, S.FAILED, note="no site answered")
    assert failed.failed_in is S.UNLEARNING
    assert failed in register.open()
    with pytest.raises(WithdrawalError, match="failed while 'unlearning'"):
        register.advance(record.id, S.VERIFYING, note="skip")
    resumed = register.advance(record.id, S.UNLEARNING, note="again")
    assert (resumed.state, resumed.failed_in) == (S.UNLEARNING, None)


@pytest.mark.parametrize("exit_", [S.CANCELLED, S.REFUSED])
def test_cancelled_or_refused_lets_the_site_back_in(
    register: Withdrawals, state: StateDirectory, exit_: S
) -> None:
    """The site may train again, and may withdraw again."""
    record = file(register, "north", restrict=True)
    register.advance(record.id, exit_, note="changed their mind")
    assert statuses(state)["north"] is SiteStatus.ACTIVE
    assert file(register, "north").id != record.id


def test_legal_hold_keeps_the_site_barred(register: Withdrawals, state: StateDirectory) -> None:
    """A hold, also one straight from receipt, leaves the site out until it ends."""
    record = file(register, "north")
    register.advance(record.id, S.LEGAL_HOLD, note="regulated trial")
    assert statuses(state)["north"] is SiteStatus.RESTRICTED
    assert register.open()
    assert register.advance(record.id, S.RESTRICTED, note="hold ended").state is S.RESTRICTED


def test_unknown_withdrawals_are_named(register: Withdrawals) -> None:
    """An id that is not there is named, whatever is asked of it."""
    for ask in (register.get, register.events):
        with pytest.raises(WithdrawalError, match="no withdrawal 'W-1'"):
            ask("W-1")
    with pytest.raises(WithdrawalError, match="no withdrawal 'W-1'"):
        register.advance("W-1", S.RESTRICTED, note="x")


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE withdrawal_events SET note = 'nothing happened'",
        "DELETE FROM withdrawal_events",
        "DELETE FROM withdrawals",
    ],
)
def test_the_database_itself_refuses_to_rewrite_history(
    register: Withdrawals, state: StateDirectory, attack: str
) -> None:
    """Events can be neither changed nor deleted, nor the withdrawal they belong to."""
    record = file(register, "north")
    before = register.events(record.id)
    with pytest.raises(IntegrityError), state.session() as session:
        session.execute(text(attack))
    assert register.events(record.id) == before
