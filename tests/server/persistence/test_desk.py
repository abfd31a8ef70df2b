"""The privacy officer's desk: deadlines, decisions, notes, duplicates, and clocks set back."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from reconsent.errors import WithdrawalError
from reconsent.files import sha256_of
from server.persistence import (
    Ledger,
    PrivacyDesk,
    Roster,
    SiteStatus,
    StateDirectory,
    WithdrawalActs,
    WithdrawalRecord,
    Withdrawals,
)
from server.persistence.repetitions import Repetition
from unlearning.intake import Channel, IdentityCheck, Intake, RequesterRole
from unlearning.ledger.canonical import canonical
from unlearning.request import Attachment, Ground, RequestDetails
from unlearning.withdrawal import WithdrawalState as S

START = dt.datetime(2027, 1, 31, 9, 30, tzinfo=dt.UTC)


class Office:
    """A register and a desk with one clock."""

    def __init__(self, state: StateDirectory) -> None:
        self.state = state
        self.now = START
        self.register = Withdrawals(state, now=lambda: self.now)
        self.desk = PrivacyDesk(state, "officer", now=lambda: self.now)
        for node, site in enumerate(("east", "north", "south")):
            Roster(state).enrol(site, node, "knee", 10, round=1)

    def file(
        self, *sites: str, reason: str = "consent", by: str = "dpo", **details: object
    ) -> WithdrawalRecord:
        """File a withdrawal."""
        said = RequestDetails(**details)  # type: ignore[arg-type]
        return self.register.file(sites, reason=reason, requested_by=by, restrict=True, details=said)


@pytest.fixture
def office(state: StateDirectory) -> Office:
    """An office in a consortium of three sites."""
    return Office(state)


def test_a_request_keeps_what_it_says(office: Office) -> None:
    """Ground, scope, owner, number and time of receipt are kept; the period begins at receipt."""
    received = START - dt.timedelta(days=3)
    record = office.file(
        "north", ground=Ground.DATA_SUBJECTS, scope="patients", patients=2, owner="Ada", request_id="T-7",
        received_at=received, zone="Europe/Berlin",
    )  # fmt: skip
    assert office.register.get(record.id) == record
    assert (record.ground, record.scope, record.patients) == (Ground.DATA_SUBJECTS, "patients", 2)
    assert (record.owner, record.request_id, record.zone) == ("Ada", "T-7", "Europe/Berlin")
    assert (record.received_at, record.filed_at) == (received, START)
    assert record.due_at == dt.datetime(2027, 2, 28, 9, 30, tzinfo=dt.UTC)


def test_overdue_is_after_the_deadline_and_until_answered(office: Office) -> None:
    """Not at the very moment, but after it; a hold answers, a release brings it back, closing ends it."""
    record = office.file("north")
    assert not record.overdue(record.due_at)
    late = record.due_at + dt.timedelta(seconds=1)
    assert record.overdue(late)
    office.now = late
    assert not office.desk.hold(record.id, "regulated trial").overdue(late)
    assert office.desk.release(record.id, "trial over").overdue(late)
    closed = office.desk.refuse(record.id, "manifestly unfounded")
    assert (closed.overdue(late), closed.late) == (False, True)


def test_an_extension_is_counted_from_receipt_once_and_in_time(office: Office) -> None:
    """31 January is extended to 30 April; a second extension, and one after the first month, are refused."""
    record = office.file("north")
    other = office.file("east")
    office.now = record.due_at
    extended = office.desk.extend(record.id, "many sites")
    assert extended.due_at == dt.datetime(2027, 4, 30, 9, 30, tzinfo=dt.UTC)
    assert extended.extended_at == office.now
    with pytest.raises(WithdrawalError, match="extended once"):
        office.desk.extend(record.id, "more")
    office.now += dt.timedelta(seconds=1)
    with pytest.raises(WithdrawalError, match="can no longer be extended"):
        office.desk.extend(other.id, "late")
    (act,) = office.desk.acts(record.id, "extended")
    assert (act.actor, act.body["reason"]) == ("officer", "many sites")


def test_decisions_follow_the_table_of_states(office: Office) -> None:
    """A hold is released, a release needs a hold, a closed withdrawal cannot be extended or granted."""
    record = office.file("north")
    with pytest.raises(WithdrawalError, match="not on legal hold"):
        office.desk.release(record.id, "x")
    held = office.desk.hold(record.id, "trial", dt.date(2028, 1, 1))
    assert held.state is S.LEGAL_HOLD
    assert office.desk.acts(record.id, "hold")[0].body["until"] == "2028-01-01"
    assert office.desk.release(record.id, "over").state is S.RESTRICTED
    assert office.desk.cancel(record.id, "changed their mind").state is S.CANCELLED
    assert Roster(office.state).get("north").status is SiteStatus.ACTIVE
    for act in (office.desk.extend, office.desk.grant_in_part):
        with pytest.raises(WithdrawalError, match="is closed: it is cancelled"):
            act(record.id, "x")
    office.desk.note(record.id, "called them")
    assert [act.kind for act in office.desk.acts(record.id)] == ["hold", "note"]


@pytest.mark.parametrize("name", ["refuse", "cancel"])
def test_a_decision_is_not_taken_again_for_another_reason(office: Office, name: str) -> None:
    """It is said when, by whom and why it was taken; the same again changes nothing."""
    record = office.file("north")
    decide = getattr(office.desk, name)
    closed = decide(record.id, "unfounded")
    steps = office.register.events(record.id)
    assert decide(record.id, " unfounded ") == closed
    with pytest.raises(
        WithdrawalError, match=r"already, since 2027-01-31, by officer, .*: unfounded\. .*not dec"
    ):
        decide(record.id, "another reason")
    assert office.register.events(record.id) == steps


def test_the_same_hold_is_on_record_once(office: Office) -> None:
    """A later date or another reason is added; after a release the same one is a new hold."""
    record = office.file("north")
    for until in (None, None, dt.date(2028, 1, 1), dt.date(2028, 1, 1)):
        office.desk.hold(record.id, " trial ", until)
    assert [act.body for act in office.desk.acts(record.id, "hold")] == [
        {"reason": "trial", "until": None},
        {"reason": "trial", "until": "2028-01-01"},
    ]
    office.desk.release(record.id, "over")
    office.desk.hold(record.id, "trial", dt.date(2028, 1, 1))
    assert len(office.desk.acts(record.id, "hold")) == 3
    for _ in range(2):
        office.desk.grant_in_part(record.id, "Art. 17(3)(d)")
    assert len(office.desk.acts(record.id, "in-part")) == 1


def test_a_grant_in_part_comes_before_the_unlearning(office: Office) -> None:
    """It is marked; once the unlearning has begun it is too late."""
    record = office.file("north")
    assert office.desk.grant_in_part(record.id, "Art. 17(3)(d)").in_part
    other = office.file("east")
    office.register.advance(other.id, S.UNLEARNING, note="begin")
    with pytest.raises(WithdrawalError, match="has begun"):
        office.desk.grant_in_part(other.id, "x")


def test_a_second_request_for_an_open_site_answers_the_first(office: Office) -> None:
    """Nothing new is filed; what the second said is kept with the first, once."""
    first = office.file("north")
    office.now += dt.timedelta(days=2)
    for _ in range(2):
        assert office.file("north", reason="regulator", by="authority", request_id="A-1") == first
    assert office.file("north") == first
    (act,) = office.desk.acts(first.id, "repeated")
    assert act.body == {"reason": "regulator", "requested_by": "authority", "request_id": "A-1"}
    assert len(office.register.all()) == 1


def test_one_number_is_one_request(office: Office) -> None:
    """Repeated while open: the same; for other sites: refused; after it is closed: a replay."""
    first = office.file("north", request_id="T-1")
    assert office.file("north", request_id="T-1", reason="other words") == first
    with pytest.raises(WithdrawalError, match="belongs to withdrawal"):
        office.file("east", request_id="T-1")
    office.desk.cancel(first.id, "mistake")
    with pytest.raises(WithdrawalError, match="this is a replay"):
        office.file("north", request_id="T-1")
    assert office.file("north", request_id="T-2").id != first.id


def test_the_number_of_a_repetition_is_known_as_that_of_a_first_request(office: Office) -> None:
    """Open: answered by the first, and taken for every other site; closed: a replay, whichever came first."""
    first = office.file("north")
    for number in ("K-17", "K-18", "K-17"):
        assert office.file("north", request_id=number) == first
    with pytest.raises(WithdrawalError, match=r"The request number K-17 belongs to withdrawal"):
        office.file("east", request_id="K-17")
    office.desk.cancel(first.id, "mistake")
    for number in ("K-18", "K-17"):
        with pytest.raises(WithdrawalError, match=f"Request {number} was filed before.*this is a replay"):
            office.file("north", request_id=number)
    assert len(office.register.all()) == 1


@pytest.mark.parametrize(
    "act",
    [
        lambda office, _: office.file("east"),
        lambda office, id_: office.desk.extend(id_, "x"),
        lambda office, id_: office.desk.hold(id_, "x"),
        lambda office, id_: office.desk.note(id_, "x"),
        lambda office, id_: office.desk.correct(id_, Intake(channel=Channel.PHONE)),
    ],
)
def test_a_clock_set_back_is_noticed(office: Office, act: Callable[[Office, str], object]) -> None:
    """Nothing is put on record before what is there already; seconds between machines do no harm."""
    record = office.file("north")
    office.now -= dt.timedelta(seconds=30)
    office.desk.note(record.id, "a little behind")
    office.now = START - dt.timedelta(days=1)
    with pytest.raises(WithdrawalError, match="Was the clock set back"):
        act(office, record.id)
    assert office.register.get(record.id).intake == Intake()


def test_a_clock_that_was_ahead_can_be_corrected(office: Office) -> None:
    """A register that a clock of a wrong year has written to can be used again, and is watched as before."""
    with pytest.raises(WithdrawalError, match="Nothing in the register"):
        office.desk.accept_clock()
    office.now = START.replace(year=2037)
    wrong = office.file("north")
    office.now = START
    with pytest.raises(WithdrawalError, match="accept-clock"):
        office.file("south")
    assert [record.id for record in office.desk.accept_clock()] == [wrong.id]
    right = office.file("south")
    assert right.received_at == START
    office.desk.note(wrong.id, "filed with a wrong clock")
    office.now = START - dt.timedelta(days=1)
    with pytest.raises(WithdrawalError, match="Was the clock set back"):
        office.desk.note(right.id, "x")
    corrections = Ledger(office.state).entries(["clock-corrected"])
    assert [entry.body["by"] for entry in corrections] == ["person"]


def test_documents_and_owners_are_on_record(office: Office) -> None:
    """A document is recorded once by its hash; the owner can change."""
    record = office.file("north", owner="Ada")
    for _ in range(2):
        office.desk.attach(record.id, Attachment("letter.pdf", "ab" * 32, 10))
    office.desk.assign(record.id, "Grace")
    assert [act.kind for act in office.desk.acts(record.id)] == ["attachment", "owner"]
    assert office.register.get(record.id).owner == "Grace"
    with pytest.raises(WithdrawalError, match="no withdrawal 'W-1'"):
        office.desk.note("W-1", "x")


def test_how_a_request_came_in_is_kept_and_can_be_said_later(office: Office) -> None:
    """What was on record before stays with the correction; what is left out stays as it was; once."""
    said = Intake(channel=Channel.PHONE, agreement="DUA-7")
    record = office.file("north", intake=said)
    assert office.register.get(record.id).intake == said
    later = Intake(channel=Channel.LETTER, identity_check=IdentityCheck.CALL_BACK)
    for _ in range(2):
        office.desk.correct(record.id, later)
    office.desk.cancel(record.id, "mistake")
    office.desk.correct(record.id, Intake(requester_role=RequesterRole.SITE))
    assert office.register.get(record.id).intake.table == {
        "channel": "letter",
        "agreement": "DUA-7",
        "requester_role": "site",
        "identity_check": "call-back",
    }
    assert [dict(act.body) for act in office.desk.acts(record.id, "intake")] == [
        {"channel": "letter", "identity_check": "call-back", "channel_before": "phone"},
        {"requester_role": "site"},
    ]
    with pytest.raises(WithdrawalError, match="number of the agreement"):
        office.desk.correct(record.id, Intake(agreement="\u202e7"))


def test_the_ledger_has_how_a_request_came_in_without_its_numbers(office: Office) -> None:
    """In the entry of the filing and of each correction, in words of closed lists."""
    record = office.file("north", intake=Intake(channel=Channel.PHONE, agreement="DUA-7"))
    office.desk.correct(record.id, Intake(agreement="DUA-8", channel=Channel.LETTER))
    ledger = Ledger(office.state)
    filed, restricted = ledger.entries(["withdrawal"])
    (act,) = ledger.entries(["withdrawal-act"])
    assert filed.body["intake"] == {"channel": "phone", "agreement": True}
    assert "intake" not in restricted.body
    assert act.body["intake"] == {"channel": "letter", "agreement": True}
    assert "DUA" not in str([entry.body for entry in ledger.entries()])


def test_the_ledger_commits_to_ground_scope_dates_and_documents(office: Office) -> None:
    """Words of closed lists, dates, and the hash of an attachment's act; no text, no name, no number."""
    record = office.file("north", ground=Ground.DATA_SUBJECTS, scope="patients", patients=731)
    office.desk.attach(record.id, Attachment("letter of Jane Doe.pdf", "ab" * 32, 10))
    extended = office.desk.extend(record.id, "many sites")
    office.desk.hold(record.id, "regulated trial", dt.date(2028, 1, 1))
    ledger = Ledger(office.state)
    filed = ledger.entries(["withdrawal"])[0].body
    assert (filed["ground"], filed["scope"]) == ("data-subjects", "patients")
    attached, longer, held = (entry.body for entry in ledger.entries(["withdrawal-act"]))
    (act,) = office.desk.acts(record.id, "attachment")
    assert attached["sha256"] == sha256_of(canonical(act.body))
    assert (longer["to"], held["until"]) == (extended.due_at.isoformat(), "2028-01-01")
    everything = str([entry.body for entry in ledger.entries()])
    words = ("Jane", "731", "many sites", "regulated trial")  # "731" may well be within a hash
    assert not [word for word in words if re.search(rf"\b{word}\b", everything)]


def test_a_repeated_request_that_came_in_otherwise_is_kept_with_the_first(office: Office) -> None:
    """Less said contradicts nothing; another channel is noted, once; the first stays as it was."""
    first = office.file("north", intake=Intake(channel=Channel.PHONE, agreement="DUA-7"))
    assert office.file("north") == first
    assert office.file("north", intake=Intake(channel=Channel.PHONE)) == first
    assert office.desk.acts(first.id, "repeated") == []
    for _ in range(2):
        assert office.file("north", intake=Intake(channel=Channel.LETTER)) == first
    (act,) = office.desk.acts(first.id, "repeated")
    assert act.body["channel"] == "letter"


def test_whatever_a_repetition_says_differently_is_kept_and_the_first_stands(office: Office) -> None:
    """Ground, scope, receipt, owner, cooperation: in the act, once, and in words; the deadline stays."""
    first = office.file("north", ground=Ground.DATA_SUBJECTS, scope="patients", patients=2, owner="Ada")
    received = START - dt.timedelta(days=3)
    asked = RequestDetails(ground=Ground.REGULATOR, received_at=received, owner="Grace")
    for _ in range(2):
        again = office.register.file(
            ["north"], reason="consent", requested_by="dpo", cooperating=True, details=asked
        )
        assert again == first
    (act,) = office.desk.acts(first.id, "repeated")
    assert act.body == {
        "reason": "consent", "requested_by": "dpo", "request_id": None, "ground": "regulator",
        "scope": "site", "patients": None, "received_at": received.isoformat(), "owner": "Grace",
        "cooperating": True, "would_be_due": "2027-02-28T09:30:00+00:00",
    }  # fmt: skip
    said = Repetition(sites=["north"], reason="consent", requested_by="dpo", cooperating=True, asked=asked)
    words = " ".join(said.words(first))
    assert "ground: regulator (first: data-subjects)" in words
    assert "scope: site (first: patients)" in words
    assert f"The first request, {first.id}, stands as it is" in words
    assert f"withdrawals cancel {first.id}" in words
    assert "due on 2027-02-28 09:30 UTC. The deadline on record stays 2027-02-28 09:30" in words


@pytest.mark.parametrize("attack", ["UPDATE withdrawal_acts SET actor = 'me'", "DELETE FROM withdrawal_acts"])
def test_acts_cannot_be_rewritten(office: Office, attack: str) -> None:
    """The database itself refuses to change or delete an act."""
    record = office.file("north")
    office.desk.note(record.id, "x")
    with pytest.raises(IntegrityError), office.state.session() as session:
        session.execute(text(attack))
    assert len(WithdrawalActs(office.state).of(record.id)) == 1
