"""The signed file of a certificate: a DSSE envelope with two signatures, of which there is only one form."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reconsent.errors import SignatureError
from unlearning.certificate.statement import PAYLOAD_TYPE, Certificate, payload_of, read_payload
from unlearning.ledger.entries import Entry
from unlearning.ledger.merkle import includes, leaf_hash
from unlearning.signing import PublicKey, SigningKey, sign_envelope, verify_envelope

_AGAIN = "Get the file again from whoever issued it."


@dataclass(frozen=True, slots=True)
class SignedCertificate:
    """A certificate with its signatures.

    Attributes
    ----------
    certificate
        What it says.
    content
        The file's bytes.
    signatures
        How many there are: 1 until the privacy officer has signed.
    """

    certificate: Certificate
    content: bytes
    signatures: int


def issue(certificate: Certificate, operator: SigningKey) -> SignedCertificate:
    """Sign as the operator.

    Raises
    ------
    SignatureError
        If the certificate names another operator's key, or the same key for both roles, or holds characters
        that cannot be shown.
    """
    signers = certificate.signers
    if signers.operator != operator.key_id:
        raise SignatureError("The certificate names another operator's key.", "Issue it anew.")
    if signers.operator == signers.privacy_officer:
        raise SignatureError(
            "Operator and privacy officer have the same key.",
            "Two people sign, each with a key of their own.",
        )
    payload = payload_of(certificate)
    read_payload(payload)  # what cannot be read again is not signed
    envelope = sign_envelope(payload, PAYLOAD_TYPE, [operator])
    return SignedCertificate(certificate, _content(envelope), 1)


def countersign(content: bytes, officer: SigningKey) -> SignedCertificate:
    """Add the privacy officer's signature; a second time changes nothing.

    Raises
    ------
    SignatureError
        If it is no certificate in its one form, or names another officer's key.
    """
    envelope, certificate = _parsed(content)
    if certificate.signers.privacy_officer != officer.key_id:
        raise SignatureError(
            f"The certificate names the privacy officer's key {certificate.signers.privacy_officer[:16]}…, "
            f"not {officer.key_id[:16]}….",
            "Sign with that key, or have the certificate issued for this one.",
        )
    if len(envelope["signatures"]) == 1:
        own = sign_envelope(payload_of(certificate), PAYLOAD_TYPE, [officer])
        envelope["signatures"].append(own["signatures"][0])
    return SignedCertificate(certificate, _content(envelope), len(envelope["signatures"]))


def verify(content: bytes, keys: Sequence[PublicKey]) -> Certificate:
    """What a certificate says, if it is signed by both keys it names and both are among ``keys``.

    Parameters
    ----------
    content
        The file's bytes; a change of any of them is noticed, also of one that carries no meaning.
    keys
        Public keys that are trusted: the operator's and the privacy officer's.

    Raises
    ------
    SignatureError
        If it was altered, a signature is missing or wrong, or a key is not trusted.
    """
    envelope, certificate = _parsed(content)
    trusted = {key.key_id: key for key in keys}
    for role, key_id in certificate.signers.model_dump().items():
        if key_id not in trusted:
            raise SignatureError(
                f"The key {key_id[:16]}… of the {role.replace('_', ' ')} was not given.",
                "Is it a certificate of another consortium? Compare the keys with their owners.",
            )
    wanted = [certificate.signers.operator, certificate.signers.privacy_officer]
    if len(set(wanted)) < 2:
        raise SignatureError("Operator and privacy officer have the same key.", "Two people must sign.")
    found = [signature["keyid"] for signature in envelope["signatures"]]
    if found != wanted:
        missing = "privacy officer" if found == wanted[:1] else "operator or privacy officer"
        raise SignatureError(
            f"The signature of the {missing} is missing.", "`reconsent certificate countersign` adds it."
        )
    verify_envelope(envelope, [trusted[key_id] for key_id in wanted], 2, payload_type=PAYLOAD_TYPE)
    _check_ledger(certificate)
    return certificate


def read_unverified(content: bytes) -> SignedCertificate:
    """What a certificate says, whoever signed it.

    Raises
    ------
    SignatureError
        If it is no certificate in its one form.
    """
    envelope, certificate = _parsed(content)
    return SignedCertificate(certificate, content, len(envelope["signatures"]))


def _check_ledger(certificate: Certificate) -> None:
    """Refuse a certificate whose proof of its place in the ledger does not hold."""
    place = certificate.ledger
    if place is None:
        return
    entry = Entry.of(place.entry_content)
    proof = [bytes.fromhex(step) for step in place.inclusion]
    leaf, root = leaf_hash(place.entry_content.encode()), bytes.fromhex(place.root)
    right = entry.number == place.entry and entry.body.get("withdrawal") == certificate.request.id
    if not right or not includes(leaf, place.entry - 1, place.size, proof, root):
        raise SignatureError(
            "The certificate's proof that it is in the ledger does not hold.",
            "Ask the operator for a new one.",
        )


def _content(envelope: dict[str, Any]) -> bytes:
    kept = {key: envelope[key] for key in ("payloadType", "payload", "signatures")}
    signatures = [{"keyid": item["keyid"], "sig": item["sig"]} for item in kept["signatures"]]
    return (json.dumps({**kept, "signatures": signatures}, separators=(",", ":")) + "\n").encode("ascii")


def _parsed(content: bytes) -> tuple[dict[str, Any], Certificate]:
    try:
        envelope = json.loads(content)
        payload = base64.b64decode(envelope["payload"], validate=True)
        # JSON and base64 have many spellings of the same content; only the one we write is accepted.
        rebuilt = {**envelope, "payload": base64.b64encode(payload).decode()}
        for item in rebuilt["signatures"]:
            if base64.b64encode(base64.b64decode(item["sig"], validate=True)).decode() != item["sig"]:
                raise ValueError("a signature is not in its one form")
        same = _content(rebuilt) == content
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as error:
        raise SignatureError(f"This is not a signed certificate: {error}.", _AGAIN) from None
    if not same or envelope["payloadType"] != PAYLOAD_TYPE:
        raise SignatureError("The file was altered: it is not as certificates are written.", _AGAIN)
    return envelope, read_payload(payload)
