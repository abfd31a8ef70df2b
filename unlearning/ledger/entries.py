"""Entries of the ledger, and the rows they are kept in."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reconsent.errors import LedgerError
from unlearning.ledger.canonical import canonical, parse
from unlearning.ledger.merkle import leaf_hash

LEDGER_BEGUN: Final = "ledger-begun"
"""The first entry: ``ledger`` (its id), ``key`` (public, hexadecimal)."""
KEY_REPLACED: Final = "key-replaced"
"""From here on another ``key`` signs, this entry included; ``former``: id of the one before."""

_KIND = re.compile(r"[a-z][a-z-]{1,31}")
_FIELDS = {"at", "body", "kind", "number"}


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened.

    Attributes
    ----------
    number
        Its place in the ledger, from 1.
    at
        When it was written, UTC, as ISO 8601 with microseconds.
    kind
        What happened; lower-case letters and hyphens.
    body
        What there is to know of it: JSON values without patients, paths or free text.
    """

    number: int
    at: str
    kind: str
    body: Mapping[str, Any]

    def content(self) -> bytes:
        """The canonical JSON that is hashed.

        Raises
        ------
        LedgerError
            If the kind is malformed, or the body is no JSON.
        """
        if not _KIND.fullmatch(self.kind):
            raise LedgerError(
                f"An entry cannot be of kind '{self.kind}'.", "Use 2 to 32 of a to z and hyphens."
            )
        return canonical({"at": self.at, "body": self.body, "kind": self.kind, "number": self.number})

    @classmethod
    def of(cls, content: bytes | str) -> Entry:
        """Read an entry's content.

        Raises
        ------
        LedgerError
            If it is not the canonical JSON of an entry.
        """
        value = parse(content)
        if not isinstance(value, dict) or value.keys() != _FIELDS or not isinstance(value["body"], dict):
            raise LedgerError("This is JSON, but no entry of a ledger.")
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Row:
    """An entry as it is kept, with what was computed when it was written.

    Attributes
    ----------
    number
        The place where it is kept.
    content
        Its canonical JSON.
    root
        Root of the tree up to and with this entry, hexadecimal.
    signature
        Base64 signature of the checkpoint of that size; see :mod:`unlearning.ledger.checkpoints`.
    leaf, kind, at
        Copies that make looking things up faster; ``None`` where there are none, as in exports.
    """

    number: int
    content: str
    root: str
    signature: str
    leaf: str | None = None
    kind: str | None = None
    at: str | None = None

    @property
    def leaf_hash(self) -> bytes:
        """Hash of the content (not the copy)."""
        return leaf_hash(self.content.encode())


def now() -> str:
    """The present moment as entries have it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
