"""Master keys: what the sites' keys are wrapped with, and where it comes from."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import shlex
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from reconsent.errors import EncryptionError
from reconsent.files import write_private
from unlearning.sealing import KEY_BYTES, place

NONCE_BYTES = 12
COMMAND_SECONDS = 60.0
"""Time for a command that wraps or unwraps a key."""

MADE_BY = "Make one with: head -c 32 /dev/urandom | base64"


class MasterKey(ABC):
    """Wraps and unwraps the keys of sites.

    Attributes
    ----------
    name
        Tells master keys apart; written beside what was wrapped. Says nothing about the key.
    """

    name: str

    @abstractmethod
    def wrap(self, site: str, key: bytes) -> str:
        """``key`` of ``site``, wrapped, as one line of text.

        Raises
        ------
        EncryptionError
            If it cannot be wrapped.
        """

    @abstractmethod
    def unwrap(self, site: str, wrapped: str) -> bytes:
        """What :meth:`wrap` was given.

        Raises
        ------
        EncryptionError
            If it was wrapped by another key, for another site, or is altered.
        """


class LocalKey(MasterKey):
    """A key that this process holds: AES-256-GCM, bound to the site's name.

    Parameters
    ----------
    secret
        32 bytes.
    where
        Where it was found, for messages.
    """

    def __init__(self, secret: bytes, where: str) -> None:
        self.secret = secret
        self.where = where
        self.name = "local-" + hashlib.sha256(b"reconsent master key\0" + secret).hexdigest()[:16]
        self._cipher = AESGCM(secret)

    @classmethod
    def of_text(cls, text: str, where: str) -> LocalKey:
        """The key in ``text``: 32 bytes in base64.

        Raises
        ------
        EncryptionError
            If it is not that. The text is not repeated.
        """
        try:
            secret = base64.b64decode(text.strip(), validate=True)
        except binascii.Error:
            secret = b""
        if len(secret) != KEY_BYTES:
            raise EncryptionError(f"{where} holds no master key: 32 bytes in base64 are wanted.", MADE_BY)
        return cls(secret, where)

    def text(self) -> str:
        """The key as :meth:`of_text` reads it."""
        return base64.b64encode(self.secret).decode()

    def wrap(self, site: str, key: bytes) -> str:
        """Encrypt ``key``."""
        nonce = os.urandom(NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, key, _bound_to(site))).decode()

    def unwrap(self, site: str, wrapped: str) -> bytes:
        """Decrypt it."""
        try:
            content = base64.b64decode(wrapped, validate=True)
            return self._cipher.decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], _bound_to(site))
        except (binascii.Error, InvalidTag, ValueError):
            raise EncryptionError(
                f"The wrapped key of site '{site}' is altered, or belongs to another site.",
                "Put the key file back from the newest copy of the keys.",
            ) from None


class CommandKey(MasterKey):
    """A key that only a key management service has: two command lines wrap and unwrap.

    They are run without a shell, with the site's name in ``RECONSENT_SITE``. The first reads the key as one
    line of base64 and writes what it has made of it as one line of text; the second reads that line and
    writes the former.

    Parameters
    ----------
    wrap, unwrap
        Program and arguments, in a shell's notation.
    """

    name = "command"

    def __init__(self, wrap: str, unwrap: str) -> None:
        self._wrap, self._unwrap = wrap, unwrap

    def wrap(self, site: str, key: bytes) -> str:
        """Have it wrapped."""
        wrapped = _run(self._wrap, site, base64.b64encode(key).decode(), "wrap-command")
        if not wrapped or "\n" in wrapped or base64.b64encode(key).decode() in wrapped:
            raise EncryptionError(
                f"The wrap-command gave {'the key itself' if wrapped else 'nothing'} for site '{site}', "
                "or more than one line.",
                "It must write the wrapped key as one line of text.",
            )
        return wrapped

    def unwrap(self, site: str, wrapped: str) -> bytes:
        """Have it unwrapped."""
        found = _run(self._unwrap, site, wrapped, "unwrap-command")
        return LocalKey.of_text(found, f"What the unwrap-command gave for site '{site}'").secret


def read_key_file(path: Path) -> list[LocalKey]:
    """The master keys in a file, one a line, the one in force first; empty if there is no file.

    Raises
    ------
    EncryptionError
        If it cannot be read, others may read it, or a line holds no key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        with os.fdopen(descriptor, encoding="ascii") as file:
            mode, lines = os.fstat(file.fileno()).st_mode, file.read().split()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise EncryptionError(f"The master key {path} cannot be read: {error}.", "Check the path.") from None
    if mode & 0o077:
        raise EncryptionError(
            f"The master key {path} can be read by others (mode {mode & 0o777:o}).", f"chmod 600 {path}"
        )
    if not lines:
        raise EncryptionError(f"{path} is empty, and should hold a master key.", "Put it back from its copy.")
    return [LocalKey.of_text(line, str(path)) for line in lines]


def write_key_file(path: Path, keys: list[LocalKey]) -> None:
    """Write ``keys``, readable by the owner only.

    Raises
    ------
    EncryptionError
        If it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, "".join(key.text() + "\n" for key in keys).encode())
    except OSError as error:
        raise EncryptionError(
            f"The master key {path} cannot be written: {error}.", "Make room, or name another file."
        ) from error


def _bound_to(site: str) -> bytes:
    return place("site key", site)


def _run(command: str, site: str, line: str, which: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command, without a shell
            shlex.split(command),
            input=line + "\n",
            env={**os.environ, "RECONSENT_SITE": site},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        # The error of a timeout repeats the command, not its input.
        raise EncryptionError(f"The {which} '{command}' failed for site '{site}': {error}.") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["(nothing)"])[-1]
        raise EncryptionError(
            f"The {which} '{command}' ended with status {done.returncode} for site '{site}': {said}",
            "Try it by hand; nothing was changed.",
        )
    return done.stdout.strip()
