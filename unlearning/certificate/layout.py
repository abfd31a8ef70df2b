"""The files of an evidence bundle: what each is called, and what is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping

SIGNED = "certificate.dsse.json"
STATEMENT = "certificate.json"
PAGE = "certificate.html"
MANIFEST = "MANIFEST.json"
VERIFY = "VERIFY.md"
FINDINGS = "findings.json"
PRIVACY = "privacy.json"
SLICE = "audit/slice.jsonl"
OPERATOR = "keys/operator.pub"
OFFICER = "keys/privacy-officer.pub"
RECEIPT = "site-receipt.dsse.json"
SIMULATED = "SIMULATION-not-evidence"

_RECEIPT = re.compile(r"site-receipt(-[1-9][0-9]?)?\.dsse\.json")

FILES: Mapping[str, str] = {
    SIGNED: "what is signed: an in-toto Statement in a DSSE envelope, two Ed25519 signatures",
    STATEMENT: "the statement that is in it, in clear",
    PAGE: "the same as a page to read",
    "request.json": "the request: how it came in, ground, scope, times, the site's keys; what was left out",
    "decisions.jsonl": "steps and decisions with their reasons, one a line",
    "policy.json": "method, settings, limits, code: as fixed before the unlearning",
    "lineage.json": "every version from the initial model to the new one, and every one with an update of "
    "the site: who took part, under pseudonyms, and the Merkle root over them",
    "unlearning.json": "what was run: settings, code, seed, remaining sites, each round with the norms of "
    "updates",
    PRIVACY: "differential privacy of each site: settings, and the ε it has told to have spent",
    "verification.json": "what was measured, beside the limits that were fixed before; what was not shown",
    FINDINGS: "what further checks of a simulation found, which the claim does not rest on; what each cannot "
    "show",
    "residuals.json": "what was erased, by hash, and each place where something is or may be left",
    "recipients.json": "who received revoked models, and when they were told",
    RECEIPT: "what the site says for itself, signed with the key of its node; if it gave it",
    SLICE: "the ledger's entries about the withdrawal, with proofs, and signed checkpoints",
    OPERATOR: "the operator's public key, which signs the ledger too",
    OFFICER: "the privacy officer's public key",
    VERIFY: "how to verify all this",
    MANIFEST: "the SHA-256 of every other file but the two of the certificate; its own is signed",
}
"""Every file there may be, in the order in which they are explained."""


def named(file: str, *, simulation: bool) -> str:
    """The name of a file; those of the certificate's two files say so if it is of a simulation."""
    if not simulation or file not in (SIGNED, STATEMENT):
        return file
    return file.replace("certificate", f"certificate.{SIMULATED}", 1)


def receipt_name(number: int) -> str:
    """The name of the receipt of the first, second, … site that gave one."""
    return RECEIPT if number == 1 else RECEIPT.replace("receipt", f"receipt-{number}")


def belongs(file: str) -> bool:
    """Whether a bundle can have a file of this name."""
    known = {named(name, simulation=simulation) for name in FILES for simulation in (True, False)}
    return file in known or _RECEIPT.fullmatch(file) is not None
