"""Passwords of the console's users: Argon2id, checked in the same time whether or not the user exists."""

from __future__ import annotations

import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from reconsent.errors import ConfigError

SHORTEST, LONGEST = 12, 256
"""Characters of a password. A long sentence is better than a short riddle, so nothing else is asked of it."""

_HASHER = PasswordHasher()
_NOBODY = _HASHER.hash("nobody has this password")
# A hash takes 64 MiB; who sends many passwords at once must wait, not fill the memory.
_TURNS = threading.BoundedSemaphore(2)


def hash_password(password: str) -> str:
    """The hash to keep, with its salt and parameters.

    Raises
    ------
    ConfigError
        If the password is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise ConfigError(
            f"A password of {len(password)} characters is not accepted.",
            f"Use {SHORTEST} to {LONGEST}; several words are easier to keep than signs.",
        )
    with _TURNS:
        return _HASHER.hash(password)


def is_password(hashed: str | None, password: str) -> bool:
    """Whether ``password`` is the one that was hashed; with ``None`` it takes as long, and is not."""
    with _TURNS:
        try:
            right = _HASHER.verify(hashed or _NOBODY, password[: LONGEST + 1])
        except (VerificationError, InvalidHashError):
            return False
    return right and hashed is not None


def is_outdated(hashed: str) -> bool:
    """Whether the hash was made with weaker parameters than those of today."""
    return _HASHER.check_needs_rehash(hashed)
