"""Sealed files: authenticated encryption piece by piece, bound to the place that a file belongs to.

A sealed file is the mark :data:`MAGIC`, a random salt, and the content in pieces of :data:`PIECE` bytes, each
encrypted with AES-256-GCM (NIST SP 800-38D). The key of the file is derived from the site's key, the salt and
the *place* by HKDF-SHA256 (RFC 5869); a piece's nonce is its number and whether it is the last. This is the
STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015): a piece that is altered, moved, left
out or cut off at the end is found, and so is a file that stands where another belongs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from reconsent.files import Part

MAGIC = b"RCNSEAL1"
"""What every sealed file begins with."""

SUFFIX = ".sealed"
"""How its name ends."""

SALT_BYTES, TAG_BYTES, KEY_BYTES = 32, 16, 32
HEAD_BYTES = len(MAGIC) + SALT_BYTES

PIECE = 2**20
"""Bytes of content in a piece: what is in memory beside the content itself."""


class SealError(ValueError):
    """A sealed file cannot be opened: another key, another place, or altered bytes."""


def place(*names: str | int) -> bytes:
    """Where a file belongs (site, line, round, kind, …), as bytes that no other place has."""
    return b"".join(len(text).to_bytes(4, "big") + text for text in (str(name).encode() for name in names))


def seal(key: bytes, where: bytes, parts: Iterable[Part]) -> Iterator[bytes]:
    """The pieces of a sealed file of ``parts``, one after the other.

    Parameters
    ----------
    key
        32 bytes.
    where
        The place it belongs to; see :func:`place`.
    parts
        Its content; views are not copied as a whole.
    """
    salt = os.urandom(SALT_BYTES)
    cipher = _cipher(key, salt, where)
    yield MAGIC + salt
    for number, (piece, last) in enumerate(_pieces(parts)):
        yield cipher.encrypt(_nonce(number, last=last), piece, where)


def sealed_size(content_bytes: int) -> int:
    """Bytes of a sealed file with so much content."""
    return HEAD_BYTES + content_bytes + TAG_BYTES * max(1, -(-content_bytes // PIECE))


class SealedReader:
    """Opens a sealed file piece by piece, whatever is wrong with it; says at its end whether it may be used.

    Parameters
    ----------
    path
        The file. It is read once; one piece is in memory.
    key, where
        As it was sealed.

    Attributes
    ----------
    sha256, bytes
        Of what has been read of the file as it lies on the disk.
    """

    def __init__(self, path: Path, key: bytes, where: bytes) -> None:
        self._path, self._key, self._where = path, key, where
        self._digest = hashlib.sha256()
        self.bytes = 0
        self._authentic = False

    @property
    def sha256(self) -> str:
        """Hexadecimal."""
        return self._digest.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        """What was sealed, as far as it is authentic; the file is read to its end all the same.

        Nothing of it may be kept unless :meth:`check` passes afterwards.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        with self._path.open("rb", buffering=0) as file:
            head = self._read(file, HEAD_BYTES)
            authentic = len(head) == HEAD_BYTES and head.startswith(MAGIC)
            cipher = _cipher(self._key, head[len(MAGIC) :], self._where)
            number, last = 0, False
            piece = self._read(file, PIECE + TAG_BYTES)
            while piece:
                following = self._read(file, PIECE + TAG_BYTES)
                last = not following
                opened = None
                if authentic:
                    with suppress(InvalidTag):
                        opened = cipher.decrypt(_nonce(number, last=last), piece, self._where)
                # Read to the end all the same: the checksum of the whole file tells altered from misplaced.
                authentic = opened is not None
                if opened is not None:
                    yield opened
                piece, number = following, number + 1
            self._authentic = authentic and last

    def check(self) -> None:
        """Pass if all of the file has been read and is authentic.

        Raises
        ------
        SealError
            If it was not sealed by this key for this place, or is altered.
        """
        if not self._authentic:
            raise SealError("not sealed by this key for this place, or altered")

    def _read(self, file: IO[bytes], count: int) -> bytes:
        found = b""
        while len(found) < count and (more := file.read(count - len(found))):
            found = found + more if found else more
        self._digest.update(found)
        self.bytes += len(found)
        return found


def unseal(path: Path, key: bytes, where: bytes) -> bytearray:
    """The content of a sealed file.

    Raises
    ------
    SealError
        If it was not sealed by ``key`` for ``where``, or is altered.
    OSError
        If it cannot be read.
    """
    reader = SealedReader(path, key, where)
    content = joined(reader.pieces(), max(0, path.stat().st_size - sealed_size(0)))
    reader.check()
    return content


def joined(pieces: Iterable[bytes], most: int) -> bytearray:
    """``pieces`` one after the other, which are no more than ``most`` bytes in all, each copied once."""
    content = bytearray(most)
    end = 0
    for piece in pieces:
        content[end : end + len(piece)] = piece
        end += len(piece)
    del content[end:]
    return content


def _cipher(key: bytes, salt: bytes, where: bytes) -> AESGCM:
    # One key a file, so the nonces need not be random: they never repeat under it.
    info = b"reconsent sealed file\0" + where
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, info).derive(key))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _pieces(parts: Iterable[Part]) -> Iterator[tuple[Part, bool]]:
    """Pieces of :data:`PIECE` bytes, the last one shorter or as long, and whether it is the last."""
    before: Part | None = None
    held: list[memoryview] = []
    size = 0
    for part in parts:
        rest = memoryview(part)
        while rest.nbytes:
            taken, rest = rest[: PIECE - size], rest[PIECE - size :]
            held.append(taken)
            size += taken.nbytes
            if size == PIECE:
                if before is not None:
                    yield before, False
                before, held, size = _joined(held), [], 0
    if held or before is None:
        if before is not None:
            yield before, False
        before = _joined(held)
    yield before, True


def _joined(views: list[memoryview]) -> Part:
    return views[0] if len(views) == 1 else b"".join(views)
