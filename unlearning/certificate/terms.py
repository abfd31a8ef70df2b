"""Which key signed for whom, from when until when; and certificates verified by that."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reconsent.errors import SignatureError
from unlearning.certificate.signed import read_unverified, verify
from unlearning.certificate.statement import Certificate
from unlearning.signing import PublicKey

Role = Literal["operator", "privacy_officer"]
_AGAIN = "Have it issued again, and signed with the keys that are in force."


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerm:
    """The time in which a key signed for a role, as a ledger has it.

    Attributes
    ----------
    role, key_id
        Who signed with which key.
    key
        Its public half; ``None`` if only its id is known.
    first, since
        Number of the entry that named it, and when that was written.
    last, until
        The same of the entry that named its successor; ``None`` while it is the one in force.
    """

    role: Role
    key_id: str
    key: PublicKey | None
    first: int
    since: dt.datetime
    last: int | None = None
    until: dt.datetime | None = None

    def covers(self, certificate: Certificate) -> bool:
        """Whether it was in force when a certificate was issued.

        By the size the ledger had then, which is signed, and which no wrong clock changes; by the time where
        the certificate has no place in the ledger.
        """
        if (place := certificate.ledger) is not None:
            return self.first <= place.size and (self.last is None or place.size < self.last)
        at = certificate.issued_at
        return self.since <= at and (self.until is None or at < self.until)


def verify_by_terms(
    content: bytes,
    ledger: str | None,
    terms: Sequence[KeyTerm],
    *,
    issued_here: bool,
    countersigned_at: dt.datetime | None,
) -> Certificate:
    """What a certificate says, if each of its keys was in force for its role when it signed.

    A signature has no time of its own. So one by a key that was replaced since holds only if it is on record
    that it was there before: who has the old key can write any date.

    Parameters
    ----------
    content
        The file's bytes; see :func:`~unlearning.certificate.signed.verify`.
    ledger
        Id of the ledger that has the terms.
    terms
        Every key it names, those that were replaced too.
    issued_here
        Whether it is on record that this statement was issued.
    countersigned_at
        When both signatures are on record; ``None`` if they are not.

    Raises
    ------
    SignatureError
        If it was altered, a signature is missing or wrong, or a key was not in force.
    """
    certificate = read_unverified(content).certificate
    if certificate.consortium.ledger != ledger:
        raise SignatureError(
            f"It names another ledger than the one here ({str(certificate.consortium.ledger)[:16]}…).",
            "It is a certificate of another consortium: verify it with the two public keys of that one.",
        )
    operator = _in_force(terms, "operator", certificate.signers.operator, certificate)
    officer = _in_force(terms, "privacy_officer", certificate.signers.privacy_officer, certificate)
    found = verify(content, [_public(operator), _public(officer)])
    if operator.until is not None and not issued_here:
        raise _replaced(operator, "and it is not on record here that this was issued before")
    if officer.until is not None and countersigned_at is None:
        raise _replaced(officer, "and it is not on record here that the officer had signed before")
    if officer.until is not None and countersigned_at is not None and countersigned_at >= officer.until:
        raise _replaced(officer, f"before the officer signed ({_moment(countersigned_at)})")
    return found


def _replaced(term: KeyTerm, why: str) -> SignatureError:
    assert term.until is not None  # noqa: S101 - only called for a key that was replaced
    return SignatureError(
        f"The {_who(term.role)}'s key {term.key_id[:16]}… was replaced on {_moment(term.until)}, {why}.",
        _AGAIN,
    )


def _in_force(terms: Sequence[KeyTerm], role: Role, key_id: str, certificate: Certificate) -> KeyTerm:
    own = [term for term in terms if term.role == role and term.key_id == key_id]
    if not own:
        raise SignatureError(
            f"The ledger here names no key {key_id[:16]}… of the {_who(role)}.",
            "Was its database put back to an earlier time? Compare the keys with their owners.",
        )
    for term in own:
        if term.covers(certificate):
            return term
    term = own[-1]
    until = "" if term.until is None else f" until {_moment(term.until)}"
    raise SignatureError(
        f"The certificate was issued on {_moment(certificate.issued_at)} for the {_who(role)}'s key "
        f"{key_id[:16]}…, which was in force from {_moment(term.since)}{until}.",
        _AGAIN,
    )


def _who(role: Role) -> str:
    return role.replace("_", " ")


def _moment(at: dt.datetime) -> str:
    return f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"


def _public(term: KeyTerm) -> PublicKey:
    if term.key is None:
        raise SignatureError(
            f"Of the key {term.key_id[:16]}… of the {_who(term.role)} only the fingerprint is on record.",
            "Get both public keys from their owners: `reconsent certificate verify FILE --key PUB`.",
        )
    return term.key
