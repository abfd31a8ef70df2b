"""The signed statement of an exit audit: in-toto, in a DSSE envelope."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from reconsent import __version__
from reconsent.errors import SignatureError
from unlearning.ledger.canonical import canonical, parse
from unlearning.signing import PublicKey, SigningKey, sign_envelope, verify_envelope
from unlearning.verification.exit_audit import LIMITS, ExitAudit
from unlearning.verification.limits import limits_of

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:reconsent:exit-audit:v1"


def sign_audit(
    audit: ExitAudit,
    key: SigningKey,
    *,
    subjects: Mapping[str, str],
    about: Mapping[str, str],
    at: dt.datetime,
) -> dict[str, Any]:
    """Sign what an audit found.

    The statement holds counts, means, areas and verdicts. It holds nothing of a single patient: no name, no
    file, no image, no curve of an attack, and no hash of the data, which would let others test guesses of it.

    Parameters
    ----------
    audit
        What was found.
    key
        Whose statement it is.
    subjects
        Name → SHA-256 of the models: ``model``, and ``before`` if it was given.
    about
        Words that say who audited what, such as site and organ.
    at
        When, with its time zone.

    Returns
    -------
    A DSSE envelope, a JSON value.

    Raises
    ------
    SignatureError
        If signing fails.
    """
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "about": dict(about),
            "audited_at": at.astimezone(dt.UTC).isoformat(timespec="seconds"),
            "reconsent": __version__,
            "members": audit.members,
            "references": audit.references,
            "accuracy_db": _plain(audit.accuracy),
            "reference_accuracy_db": _plain(audit.reference_accuracy),
            "membership": _attack(audit.membership),
            "membership_before": _attack(audit.membership_before),
            "ks_references": audit.ks_references,
            "ks_before": audit.ks_before,
            "findings": [dataclasses.asdict(finding) for finding in audit.findings],
            "limits": {"audit": LIMITS} | {f.check: limits_of(f.check) for f in audit.findings},
        },
    }
    return sign_envelope(canonical(statement), PAYLOAD_TYPE, [key])


def read_audit(envelope: Mapping[str, Any], keys: Sequence[PublicKey]) -> dict[str, Any]:
    """The statement in an envelope, if one of ``keys`` signed it.

    Raises
    ------
    SignatureError
        If nobody trusted signed it, or it is no exit audit.
    """
    statement = parse(verify_envelope(envelope, keys, payload_type=PAYLOAD_TYPE))
    if not isinstance(statement, dict) or statement.get("predicateType") != PREDICATE_TYPE:
        raise SignatureError("What was signed is no exit audit.", "Give the right file.")
    return statement


def _plain(value: Any) -> dict[str, Any] | None:
    return None if value is None else dataclasses.asdict(value)


def _attack(attack: Any) -> dict[str, Any] | None:
    if attack is None:
        return None
    table = dataclasses.asdict(attack)
    # The curve's steps are single patients.
    return {key: value for key, value in table.items() if not key.endswith("_rates")}
