"""The keys of operator and privacy officer with the time each was in force, as the ledger has them."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

from server.persistence import Ledger, StateDirectory
from server.persistence.ledger_entries import OFFICER_KEY
from unlearning.certificate.terms import KeyTerm, Role
from unlearning.ledger.entries import KEY_REPLACED, LEDGER_BEGUN, Entry
from unlearning.signing import PublicKey, load_public_key

OFFICER = "privacy-officer.pub"
"""File in the state directory: the public key of the privacy officer that is in force."""


def signing_terms(state: StateDirectory) -> list[KeyTerm]:
    """Every key that was named as the operator's or the officer's, in the order of the ledger.

    Where an entry has the fingerprint alone, the key is taken from the file if it is that one.

    Raises
    ------
    LedgerError, SignatureError
        If an entry, or the file of the officer's key, cannot be read.
    """
    terms: list[KeyTerm] = []
    kept = _kept(state.path)
    for entry in Ledger(state).entries([LEDGER_BEGUN, KEY_REPLACED, OFFICER_KEY]):
        made = _term(entry, kept)
        for place, term in enumerate(terms):
            if term.role == made.role and term.last is None:
                terms[place] = dataclasses.replace(term, last=made.first, until=made.since)
        terms.append(made)
    return terms


def officer_in_force(state: StateDirectory) -> PublicKey | None:
    """The privacy officer's key to be named in the next certificate; ``None`` if none is known.

    The ledger says which: a file without an entry, as where the disk was full when that was to be written, is
    no key of anybody's.
    """
    named = [term for term in signing_terms(state) if term.role == "privacy_officer"]
    return named[-1].key if named else None


def _term(entry: Entry, kept: PublicKey | None) -> KeyTerm:
    role: Role = "operator"
    key: PublicKey | None
    if entry.kind == OFFICER_KEY:
        role, key_id = "privacy_officer", str(entry.body["key"])
        if "public" in entry.body:
            key = PublicKey.from_hex(str(entry.body["public"]))
        else:
            key = kept if kept is not None and kept.key_id == key_id else None
    else:
        key = PublicKey.from_hex(str(entry.body.get("key")))
        key_id = key.key_id
    return KeyTerm(
        role=role, key_id=key_id, key=key, first=entry.number, since=dt.datetime.fromisoformat(entry.at)
    )


def _kept(path: Path) -> PublicKey | None:
    file = path / OFFICER
    return load_public_key(file) if file.is_file() else None
