"""Commitments: an entry vouches for a text that is kept beside the ledger, without telling or betraying it.

The hash of a short text could be guessed, so it is keyed with random bytes (HMAC-SHA256), the salt, which is
kept beside the text. Whoever has both can show that they are what the entry was written for; once text or
salt is erased, what the entry holds says nothing of either.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any, Final

from unlearning.ledger.canonical import canonical

SALT_BYTES: Final = 32


def new_salt() -> str:
    """A salt, hexadecimal."""
    return secrets.token_hex(SALT_BYTES)


def commitment(salt: str, content: Any) -> str:
    """What an entry holds of ``content`` (JSON values), hexadecimal.

    Raises
    ------
    LedgerError
        If the content is no JSON.
    ValueError
        If the salt is not hexadecimal.
    """
    return hmac.new(bytes.fromhex(salt), canonical(content), hashlib.sha256).hexdigest()
