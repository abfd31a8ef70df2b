"""Why something that a user wanted done was not done, as one word for the ledger.

No word that the user typed, and none of the error's, comes into the ledger.
"""

from __future__ import annotations

import re
from typing import Final

from reconsent.errors import (
    EncryptionError,
    LedgerError,
    ReconsentError,
    SignatureError,
    StateError,
    WithdrawalError,
)

UNFORESEEN: Final = "unforeseen"
"""Reason of what went wrong in the console itself."""
TOO_LARGE: Final = "too-large"
"""Reason of a form that was larger than the console reads."""
UNREADABLE: Final = "unreadable"
"""Reason of a form that is none."""
ROLE: Final = "role"
"""Reason of what the user's role may not do."""

KNOWN_DECISIONS: Final = frozenset({"extend", "hold", "release", "grant-in-part", "refuse", "cancel"})
"""Decisions by the names that forms give them."""

_REASONS: dict[type[ReconsentError], str] = {
    WithdrawalError: "withdrawal",
    SignatureError: "signature",
    LedgerError: "ledger",
    StateError: "state",
    EncryptionError: "encryption",
}
_BY_STATUS = {400: "malformed", 404: "unknown", 409: "conflict"}
_ID = re.compile(r"W-\d{8}-[0-9a-f]{6}|C-[0-9a-f]{12}")


def reason_of(error: Exception) -> str:
    """The kind of an error, as one word."""
    if not isinstance(error, ReconsentError):
        return UNFORESEEN
    return next((word for kind, word in _REASONS.items() if isinstance(error, kind)), "other")


def reason_of_status(status: int) -> str:
    """The kind of an answer that is an error by itself."""
    return _BY_STATUS.get(status, "other")


def subject_of(id_: object) -> str | None:
    """What a path names, if it is the number of a withdrawal or certificate and not just any text."""
    text = str(id_)
    return text if _ID.fullmatch(text) else None
