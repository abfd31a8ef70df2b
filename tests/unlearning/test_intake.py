"""How a request came in: closed lists, one number, and what nobody has said."""

from __future__ import annotations

import datetime as dt

import pytest

from reconsent.errors import WithdrawalError
from unlearning.intake import NAMES, Channel, IdentityCheck, Intake, RequesterRole
from unlearning.request import RequestDetails

NOW = dt.datetime(2027, 3, 1, tzinfo=dt.UTC)


def test_what_was_said_and_what_was_left_out_are_told_apart() -> None:
    """An empty field is one that was left out; together they are all there is to say."""
    intake = Intake.read(channel="letter", agreement="", identity_check="not-checked")
    assert intake.stated == {"channel": "letter", "identity_check": "not-checked"}
    assert intake.words["identity_check"] == "it was not checked"
    assert len(intake.missing) == 2 == len(NAMES) - len(intake.stated)
    assert Intake.read(**intake.table) == intake
    assert Intake().words == Intake().stated == {}


def test_every_word_has_its_explanation() -> None:
    """No word of a list is without words for a reader, nor longer than the register's column."""
    for word in (*Channel, *RequesterRole, *IdentityCheck):
        assert word.words
        assert len(word) <= 16


@pytest.mark.parametrize("name", ["channel", "requester_role", "identity_check"])
@pytest.mark.parametrize("word", ["pigeon", "Letter", "letter ", "\x1b[2J", "' OR 1=1"])
def test_a_word_of_no_list_is_refused_and_shown_harmlessly(name: str, word: str) -> None:
    """The accepted words are named; what was typed cannot act on a terminal."""
    with pytest.raises(WithdrawalError, match="There are: ") as refused:
        Intake.read(**{name: word})
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("number", ["  ", "a\nb", "\x1b[2Jx", "71-\u202eAUD", "\ud800", "\u200bx", "ä" * 65])
def test_a_hostile_number_of_an_agreement_is_refused(number: str) -> None:
    """What is empty, too long in bytes, or would deceive its reader is not kept."""
    with pytest.raises(WithdrawalError, match="number of the agreement"):
        RequestDetails(intake=Intake(agreement=number)).checked(NOW)


def test_the_ledger_learns_no_number() -> None:
    """A ledger outlives an erasure: of an agreement it says only that there is one."""
    intake = Intake(channel=Channel.EMAIL, agreement="DUA-2026-004")
    assert intake.closed_words == {"channel": "e-mail", "agreement": True}
    assert RequestDetails(intake=Intake(agreement=" DUA-1 ")).checked(NOW).intake.agreement == "DUA-1"
