"""What the ledger says of each thing: kinds of entries and their bodies.

An entry outlives what it speaks of, so it holds nothing that may have to be erased: sites by name, numbers,
hashes and words of a closed list; no patients, no persons, no free text. Where a text was written beside
(the reason of a withdrawal, a note), it stays in the register; the entry commits to it by a hash with a salt
that is kept there too, so an entry without them tells nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.persistence.commitments import act_commitment, committed, event_commitment
from server.persistence.round_records import RoundRecord, SiteOutcome
from server.persistence.tables import ModelRow, WithdrawalActRow, WithdrawalEventRow, WithdrawalRow
from server.persistence.withdrawal_records import intake_of
from unlearning.database import ContributionRow
from unlearning.intake import NAMES, Intake
from unlearning.ledger.canonical import canonical
from unlearning.signing import PublicKey

KEY_ENROLLED: Final = "key-enrolled"
KEY_REVOKED: Final = "key-revoked"
SITE_JOINED: Final = "site-joined"
SITE_READMITTED: Final = "site-readmitted"
IDENTITY_REFUSED: Final = "identity-refused"
SITE_REFUSED: Final = "site-refused"
ROUND: Final = "round"
ROUND_FAILED: Final = "round-failed"
MODEL_REGISTERED: Final = "model-registered"
MODELS_REVOKED: Final = "models-revoked"
MODEL_EXPORTED: Final = "model-exported"
WITHDRAWAL: Final = "withdrawal"
WITHDRAWAL_ACT: Final = "withdrawal-act"
CONTRIBUTIONS_READ: Final = "contributions-read"
CONTRIBUTIONS_ERASED: Final = "contributions-erased"
CONTRIBUTIONS_EXPIRED: Final = "contributions-expired"
CONTRIBUTIONS_DROPPED: Final = "contributions-dropped"
STATE_COPIED: Final = "state-copied"
STATE_RESTORED: Final = "state-restored"
MESSAGES_PURGED: Final = "messages-purged"
CLOCK_CORRECTED: Final = "clock-corrected"
OFFICER_KEY: Final = "officer-key"
CONSOLE_USER: Final = "console-user"
CONSOLE_LOGIN: Final = "console-login"
CONSOLE_ACTION: Final = "console-action"

KINDS: Mapping[str, str] = {
    "ledger-begun": "the ledger, and the key that signs it",
    "key-replaced": "another key signs from here on",
    KEY_ENROLLED: "a key may speak for a site",
    KEY_REVOKED: "a key speaks for its site no more",
    SITE_JOINED: "a site was in contact for the first time",
    SITE_READMITTED: "a withdrawn site may take part again, as a newcomer",
    IDENTITY_REFUSED: "a node said it is a site that its key does not speak for",
    SITE_REFUSED: "a site was not let in: its consortium file differs from the server's, or it says that it "
    "has more examples than are allowed",
    ROUND: "who took part in a round, whose reply was refused, which model came of it, and what was measured",
    ROUND_FAILED: "a round got too few usable replies, and nothing of it was kept: whose reply was of no use",
    MODEL_REGISTERED: "a model version, its hash, its parent, and whose updates are in it",
    MODELS_REVOKED: "versions that may not be used any more",
    MODEL_EXPORTED: "a model version was given to somebody",
    WITHDRAWAL: "a withdrawal was filed, or went from one state to another",
    WITHDRAWAL_ACT: "something else was done about a withdrawal; figures and documents by their hash, "
    "texts by one with a salt",
    CONTRIBUTIONS_READ: "an unlearning reads what was kept of a site: of the withdrawn one, or of another",
    CONTRIBUTIONS_ERASED: "what was kept of sites was erased",
    CONTRIBUTIONS_EXPIRED: "kept updates were older than the limits, and were removed",
    CONTRIBUTIONS_DROPPED: "what sites contributed after a round was dropped: the model went back to it",
    STATE_COPIED: "a backup was begun, contributions included; whether every one is sealed",
    STATE_RESTORED: "this state was restored from a backup",
    MESSAGES_PURGED: "the SuperLink's database was emptied of messages, and so of sites' updates",
    CLOCK_CORRECTED: "earlier entries of the register were written by a clock that was ahead",
    OFFICER_KEY: "which key the privacy officer signs with from here on, and which one before",
    CONSOLE_USER: "somebody may use the console, may no more, or has a new password or role",
    CONSOLE_LOGIN: "somebody logged in to the console or out, or failed to; users by their number",
    CONSOLE_ACTION: "what a user of the console did, or tried and was refused",
}
"""Every kind of entry, and what it says."""

RefusalKind = Literal["consortium", "examples"]
"""Why a site was not let in."""

_REFUSAL = re.compile(r"refused-by-site: ([a-z-]{1,40})")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ROLES = frozenset({"server", "operator", "simulation"})
HASHED_ACTS = frozenset({"policy", "figures", "erasure", "certificate", "countersigned", "attachment"})
"""Acts whose body has no persons in it, or cannot be guessed without the document it names the hash of; a
hash of the others' could be guessed."""
ACT_DATES: Mapping[str, str] = {"extended": "to", "hold": "until"}
"""Of acts that set a date: the field with it."""


def role(actor: str) -> str:
    """Who acted, without a person's name."""
    return actor if actor in _ROLES else "person"


def round_body(record: RoundRecord, sha256: str | None) -> dict[str, Any]:
    """Of :data:`ROUND`; ``sha256`` is that of the model it ended with."""
    metrics = record.metrics
    return {
        "line": record.line,
        "kind": record.kind,
        "round": record.round,
        "accepted": bool(metrics.get("accepted", True)),
        "model": {"version": record.model_version, "sha256": sha256},
        "sites": {site: _outcome(outcome) for site, outcome in sorted(record.sites.items())},
        "figures": metrics.get("evaluation") or {},
        "figures-before": metrics.get("incoming") or {},
    }


def failed_round_body(record: RoundRecord) -> dict[str, Any]:
    """Of :data:`ROUND_FAILED`."""
    return {
        "line": record.line,
        "kind": record.kind,
        "round": record.round,
        "sites": {site: _outcome(outcome) for site, outcome in sorted(record.sites.items())},
    }


def model_body(row: ModelRow) -> dict[str, Any]:
    """Of :data:`MODEL_REGISTERED`."""
    return {
        "version": row.id,
        "sha256": row.digest,
        "line": row.line,
        "kind": row.kind,
        "round": row.round,
        "parent": row.parent,
        "sites": row.sites,
        "forgotten": row.forgotten,
        "method": row.method,
    }


def withdrawal_body(row: WithdrawalRow, event: WithdrawalEventRow) -> dict[str, Any]:
    """Of :data:`WITHDRAWAL`; ground, scope, and how the request came in are in the entry of its filing."""
    old = event.old_state
    body: dict[str, Any] = {
        "withdrawal": row.id,
        "sites": row.sites,
        "from": old,
        "to": row.state,
        "by": role(event.actor),
        "received": row.received_at.isoformat(timespec="seconds"),
        "due": row.due_at.isoformat(timespec="seconds"),
        "method": row.method,
        "simulated": row.simulated,
        **committed(event, event_commitment(event, row)),
    }
    if old is None:
        body |= {"ground": row.ground, "scope": row.scope}
    if old is None and (intake := intake_of(row).closed_words):
        body["intake"] = intake
    return body


def act_body(row: WithdrawalActRow) -> dict[str, Any]:
    """Of :data:`WITHDRAWAL_ACT`."""
    return said_of_act(row) | committed(row, act_commitment(row))


def said_of_act(row: WithdrawalActRow) -> dict[str, Any]:
    """What an entry says of an act in clear; all that those of former releases hold."""
    kind, body = row.kind, row.body
    found: dict[str, Any] = {"withdrawal": row.withdrawal, "act": kind, "by": role(row.actor)}
    if kind == "intake":
        found["intake"] = Intake.read(**{name: body.get(name) for name in NAMES}).closed_words
    if kind in ACT_DATES:
        found[ACT_DATES[kind]] = body.get(ACT_DATES[kind])
    if kind in HASHED_ACTS:
        found["sha256"] = hashlib.sha256(canonical(body)).hexdigest()
    return found


def officer_body(key: PublicKey, replaced: str | None, actor: str) -> dict[str, Any]:
    """Of :data:`OFFICER_KEY`; keys by their fingerprints, and the new one itself, to verify with."""
    return {"key": key.key_id, "public": key.raw.hex(), "replaced": replaced, "by": role(actor)}


def revocation_body(site: str, versions: Iterable[str]) -> dict[str, Any]:
    """Of :data:`MODELS_REVOKED`."""
    return {"site": site, "versions": list(versions)}


def identity_body(node_id: int, claimed: str, holder: str | None) -> dict[str, Any]:
    """Of :data:`IDENTITY_REFUSED`; what is no name of a site is not repeated."""
    return {
        "node": str(node_id),
        "claimed": claimed if _NAME.fullmatch(claimed) else None,
        "key-of": holder,
    }


def site_refusal_body(node_id: int, site: str, why: RefusalKind, parts: Collection[str]) -> dict[str, Any]:
    """Of :data:`SITE_REFUSED`; ``parts`` of the file that differ."""
    return {"node": str(node_id), "site": site, "why": why, "parts": sorted(parts)}


def contributions_body(
    withdrawal: str, sites: Collection[str], *, method: str | None = None, session: Session
) -> dict[str, Any]:
    """Of :data:`CONTRIBUTIONS_READ` and :data:`CONTRIBUTIONS_ERASED`; to be called before the erasure.

    ``sha256`` is that of the JSON list of the files' hashes, in their order.
    """
    columns = select(ContributionRow.sha256, ContributionRow.bytes)
    rows = session.execute(columns.where(ContributionRow.site.in_(sites))).all()
    # A round whose update was not kept has a row without a file: its share and its norm.
    hashes = [row.sha256 for row in rows if row.sha256]
    body: dict[str, Any] = {
        "withdrawal": withdrawal,
        "sites": sorted(sites),
        "files": len(hashes),
        "bytes": sum(row.bytes for row in rows),
        "sha256": _digest_of(hashes),
    }
    return body if method is None else body | {"method": method}


def expired_body(sites: Collection[str], hashes: Collection[str]) -> dict[str, Any]:
    """Of :data:`CONTRIBUTIONS_EXPIRED`; ``sha256`` as in :func:`contributions_body`."""
    return {"sites": sorted(sites), "files": len(hashes), "sha256": _digest_of(hashes)}


def _digest_of(hashes: Iterable[str]) -> str:
    return hashlib.sha256(canonical(sorted(hashes))).hexdigest()


def _outcome(outcome: SiteOutcome) -> dict[str, Any]:
    found: dict[str, Any] = {"outcome": outcome.outcome}
    if outcome.outcome == "ok":
        found |= {"examples": outcome.num_examples, "norm": outcome.update_norm}
    elif (refusal := _REFUSAL.search(outcome.reason)) is not None:
        # The site's own words are not repeated, only which of its rules it named.
        found["refused-by-site"] = refusal[1]
    return found
