"""Pseudonyms that only the holder of a secret key can connect with a patient again."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from functools import cached_property
from pathlib import Path

from reconsent.errors import DataError
from reconsent.files import read_or_make_secret

KEY_BYTES = 32


def default_key_file() -> Path:
    """Where the key is kept unless told otherwise: in the user's configuration directory."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "reconsent" / "pseudonym.key"


class Pseudonymiser:
    """HMAC-SHA256 under a secret key (a keyed pseudonym in the sense of GDPR, Article 4(5)).

    Without the key nobody can find a pseudonym by trying out names; with it, the same patient gets the
    same pseudonym in every import. Whoever destroys the key makes the connection irrecoverable.

    Parameters
    ----------
    key_file
        32 random bytes, readable by the owner alone; made if missing.
    forbidden
        Directory that the key must not lie in, because it is given away.

    Raises
    ------
    DataError
        If the key lies in that directory; at first use if it is too short, or cannot be read or made.
    """

    def __init__(self, key_file: Path, *, forbidden: Path) -> None:
        key_file = key_file.expanduser().resolve()
        if key_file.is_relative_to(forbidden.resolve()):
            raise DataError(
                f"The key of the pseudonyms {key_file} would lie beside the volumes.",
                "Keep it elsewhere: whoever has both can tell who the patients are.",
            )
        self.key_file = key_file

    def patient(self, identifier: str) -> str:
        """The patient's pseudonym: ``p-`` and 16 hexadecimal digits."""
        return f"p-{self._digest('patient', identifier)[:16]}"

    def examination(self, identifier: str, label: str) -> str:
        """Eight hexadecimal digits that tell this examination apart from others of the patient."""
        return self._digest("examination", identifier, label)[:8]

    @cached_property
    def _key(self) -> bytes:
        # Not before it is needed: an import that finds nothing leaves no key behind.
        try:
            key = read_or_make_secret(self.key_file, KEY_BYTES)
        except OSError as error:
            raise DataError(
                f"The key of the pseudonyms {self.key_file} cannot be read or made: {error}.",
                "Choose another place with --key-file.",
            ) from None
        if len(key) < KEY_BYTES:
            raise DataError(
                f"The key of the pseudonyms {self.key_file} has {len(key)} bytes; {KEY_BYTES} are needed.",
                "Name the right file. If the key is lost, choose a new place: patients get new pseudonyms.",
            )
        return key

    def _digest(self, *parts: str) -> str:
        return hmac.new(self._key, "\x1f".join(parts).encode(), hashlib.sha256).hexdigest()


class OpenIdentifiers:
    """The source's own identifiers, made fit for file names; for those who chose to keep them."""

    key_file = None

    def patient(self, identifier: str) -> str:
        """The identifier, with what file names cannot hold replaced by ``-``."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", identifier).strip("-.") or "patient"

    def examination(self, identifier: str, label: str) -> str:
        """Eight hexadecimal digits that tell this examination apart from others of the patient."""
        return hashlib.sha256(f"{identifier}\x1f{label}".encode()).hexdigest()[:8]
