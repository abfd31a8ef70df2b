"""Certificates verified by the keys that were in force, each for its role and its time."""

from __future__ import annotations

import datetime as dt

import pytest

from reconsent.errors import SignatureError
from tests.unlearning.test_signed_certificate import OFFICER, OPERATOR, STRANGER, certificate
from unlearning.certificate import statement as said
from unlearning.certificate.signed import countersign, issue
from unlearning.certificate.terms import KeyTerm, Role, verify_by_terms
from unlearning.signing import PublicKey, SigningKey

LEDGER = certificate().consortium.ledger
ISSUED = certificate().issued_at
DAY = dt.timedelta(days=1)


def term(role: Role, key: PublicKey, since: int = -10, until: int | None = None) -> KeyTerm:
    """In force between days counted from the issue; the entries are numbered alike."""
    return KeyTerm(
        role=role,
        key_id=key.key_id,
        key=key,
        first=100 + since,
        since=ISSUED + since * DAY,
        last=None if until is None else 100 + until,
        until=None if until is None else ISSUED + until * DAY,
    )


def signed(operator: SigningKey = OPERATOR, officer: SigningKey = OFFICER, **changes: object) -> bytes:
    """A certificate signed by both; it has no place in the ledger unless one is given."""
    signers = said.Signers(operator=operator.key_id, privacy_officer=officer.key_id)
    made = certificate(signers=signers, **{"ledger": None, **changes})
    return countersign(issue(made, operator).content, officer).content


def problem(content: bytes, terms: list[KeyTerm], *, here: bool = True, at: int | None = 0) -> str:
    """Why it does not hold; empty if it does. ``at``: the day on which both signatures were on record."""
    when = None if at is None else ISSUED + at * DAY
    try:
        verify_by_terms(content, LEDGER, terms, issued_here=here, countersigned_at=when)
    except SignatureError as error:
        return str(error)
    return ""


IN_FORCE = [term("operator", OPERATOR.public), term("privacy_officer", OFFICER.public)]
REPLACED = [
    term("operator", OPERATOR.public),
    term("privacy_officer", OFFICER.public, until=5),
    term("privacy_officer", STRANGER.public, since=5),
]


def test_keys_in_force_need_no_record() -> None:
    """Also one that was issued elsewhere, or was never brought back, holds by the keys of today."""
    assert problem(signed(), IN_FORCE, here=False, at=None) == ""


def test_a_replaced_officers_key_holds_for_what_it_signed_before() -> None:
    """Signed before the replacement: it holds. After it, or nobody knows when: refused by name."""
    assert problem(signed(), REPLACED, at=4) == ""
    for at, words in (
        (5, "before the officer signed"),
        (9, "before the officer signed"),
        (None, "not on record"),
    ):
        said = problem(signed(), REPLACED, at=at)
        assert words in said
        assert f"{OFFICER.key_id[:16]}… was replaced on" in said


def test_a_key_is_refused_for_what_was_issued_when_it_was_not_in_force() -> None:
    """Issued after the old key was replaced, or before the new one was named."""
    after = signed(issued_at=ISSUED + 6 * DAY)
    assert "was in force from" in problem(after, REPLACED, at=7)
    assert "was in force from" in problem(signed(officer=STRANGER), REPLACED, at=7)


def test_a_replaced_operators_key_holds_for_what_is_on_record() -> None:
    """Whoever has the old key can write any date; what was issued here before holds."""
    terms = [term("operator", OPERATOR.public, until=3), term("privacy_officer", OFFICER.public)]
    assert problem(signed(), terms) == ""
    assert "not on record here that this was issued before" in problem(signed(), terms, here=False)


def test_roles_are_not_exchanged() -> None:
    """An officer's old and new key together are no operator and officer."""
    both = signed(operator=OFFICER, officer=STRANGER)
    assert f"names no key {OFFICER.key_id[:16]}… of the operator" in problem(both, REPLACED)


def test_the_place_in_the_ledger_goes_before_the_clock() -> None:
    """A clock that was ahead when it was issued makes no key of that time invalid, and no later one valid."""

    def issued(size: int) -> said.Certificate:
        place = said.LedgerPosition(size=size, root="0" * 64, entry=1, entry_content="{}", inclusion=())
        return certificate(issued_at=ISSUED + 400 * DAY, ledger=place)

    old, new = REPLACED[1:]
    assert [key.covers(issued(104)) for key in (old, new)] == [True, False]
    assert [key.covers(issued(105)) for key in (old, new)] == [False, True]


def test_another_ledger_and_a_key_known_by_its_fingerprint_alone_are_named() -> None:
    """What cannot be verified here says what can be done."""
    with pytest.raises(SignatureError, match="another ledger"):
        verify_by_terms(signed(), "0" * 32, IN_FORCE, issued_here=False, countersigned_at=None)
    bare = KeyTerm(
        role="privacy_officer", key_id=OFFICER.key_id, key=None, first=1, since=ISSUED - DAY
    )  # fmt: skip
    assert "only the fingerprint" in problem(signed(), [IN_FORCE[0], bare])
