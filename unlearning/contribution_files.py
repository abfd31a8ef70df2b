"""The files of the contribution cache: sealed by their site's key, and read only if they are still right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconsent.errors import ContributionError
from reconsent.files import AtomicWrites, Part
from unlearning.database import ContributionRow
from unlearning.parameters import Vector
from unlearning.sealing import PIECE, SUFFIX, SealedReader, SealError, joined, place, seal
from unlearning.site_keys import SiteKeys
from unlearning.vector_files import VectorType, blocks, decode, encode

PLAIN_SUFFIX = ".safetensors"

_UNUSED = "It is not used. Restore it from a backup, or unlearn by a method that needs no cache."


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the cache, as the index knows it.

    Attributes
    ----------
    site, round
        Whose contributions, and up to or of which round.
    path
        Relative to the cache's directory; empty if only the numbers are kept. Ends with ``.sealed`` if it is.
    sha256, bytes, dtype
        Of the file as it lies on the disk, and of its numbers.
    """

    site: str
    round: int
    path: str
    sha256: str
    bytes: int
    dtype: str

    @classmethod
    def none(cls, site: str, round_: int) -> StoredFile:
        """There is no file."""
        return cls(site, round_, "", "", 0, "")

    @classmethod
    def of(cls, row: ContributionRow) -> StoredFile:
        """The file that a row of the index names."""
        return cls(row.site, row.round, row.path, row.sha256, row.bytes, row.dtype)

    @property
    def sealed(self) -> bool:
        """Whether it is sealed by the site's key."""
        return self.path.endswith(SUFFIX)


class ContributionFiles:
    """Reads and writes the files below the cache's directory; used by several threads at once.

    Parameters
    ----------
    directory
        Of the cache.
    keys
        The sites' keys; ``None`` to write files that are not sealed.
    line
        Line of models; a file of one is not taken for one of another.
    """

    def __init__(self, directory: Path, keys: SiteKeys | None = None, line: str = "main") -> None:
        self.keys = keys
        self._directory = directory
        self._line = line

    def write(
        self,
        writes: AtomicWrites,
        site: str,
        round_: int,
        kind: str,
        vectors: Mapping[str, Vector],
        dtype: VectorType,
    ) -> StoredFile:
        """Write a file of ``vectors`` ``(P,)``; see :meth:`write_parts`."""
        return self.write_parts(writes, site, round_, kind, encode(vectors, dtype), dtype)

    def write_parts(
        self,
        writes: AtomicWrites,
        site: str,
        round_: int,
        kind: str,
        parts: Iterable[Part],
        dtype: VectorType,
    ) -> StoredFile:
        """Write a file, as it comes, that is there for good when ``writes`` ends.

        Raises
        ------
        ContributionError
            If it cannot be written.
        EncryptionError
            If the site's key cannot be used.
        """
        path = f"{site}/{kind}-{round_:06d}"
        if self.keys is None:
            path += PLAIN_SUFFIX
        else:
            path += SUFFIX
            parts = seal(self.keys.key(site), self._place(site, path), parts)
        written = _Measured(parts)
        try:
            writes.write(self._directory / path, written)
        except OSError as error:
            raise unwritable(f"The contribution of site '{site}' of round {round_}", error) from error
        return StoredFile(site, round_, path, written.sha256, written.bytes, dtype)

    def read(self, file: StoredFile) -> dict[str, Vector]:
        """The vectors ``(P,)`` of a file; not to be changed in place.

        Raises
        ------
        ContributionError
            If it is missing, truncated, altered, or another file stands in its place.
        EncryptionError
            If the site's key is missing or wrong.
        """
        with self._pieces(file) as pieces:
            content = joined(pieces, file.bytes)
        return decode(content)

    def blocks(self, file: StoredFile) -> Iterator[tuple[str, Vector]]:
        """The vectors of a file in blocks, each with its vector's name, in the order of the names.

        Nothing may be kept of them unless they come to their end: only there is the file known to be right.

        Raises
        ------
        ContributionError, EncryptionError
            As :meth:`read`.
        """
        right = True
        with self._pieces(file) as pieces:
            try:
                yield from blocks(pieces)
            except (ValueError, KeyError, TypeError):
                right = False
                for _ in pieces:  # In which way it is wrong, the checksum of the whole tells.
                    pass
        if not right:
            raise ContributionError(f"{file.path} is no file of vectors.", _UNUSED)

    @contextmanager
    def _pieces(self, file: StoredFile) -> Iterator[Iterator[bytes]]:
        """The content of a file piece by piece; leaving the block raises if the file is not right."""
        path = self._directory / file.path
        what = f"The contribution of site '{file.site}' up to round {file.round} ({path})"
        reader: _PlainReader | SealedReader = _PlainReader(path)
        if file.sealed:
            reader = SealedReader(path, self._key(what, file.site), self._place(file.site, file.path))
        try:
            yield reader.pieces()
        except OSError as error:
            raise ContributionError(
                f"{what} cannot be read: {error.strerror}.", "Restore it from a backup."
            ) from error
        self._compare(what, file, reader.sha256, reader.bytes)
        try:
            reader.check()
        except SealError:
            raise ContributionError(
                f"{what} was sealed by another key, or for another site, round or kind.", _UNUSED
            ) from None

    def _key(self, what: str, site: str) -> bytes:
        if self.keys is None:
            raise ContributionError(
                f"{what} is encrypted, and no keys were given to read it.",
                'Set encryption in [contributions] back to what it was; "none" is for files not yet written.',
            )
        return self.keys.existing(site)

    def _place(self, site: str, path: str) -> bytes:
        # The path says site, kind and round; a renamed directory must not make one site's file another's.
        return place("contribution", self._line, site, path)

    @staticmethod
    def _compare(what: str, file: StoredFile, sha256: str, size: int) -> None:
        if sha256 != file.sha256:
            kind = "truncated" if size < file.bytes else "altered"
            raise ContributionError(
                f"{what} is {kind}: its checksum is not the recorded one.",
                _UNUSED,
            )


class _PlainReader:
    """A file that is not sealed, read as :class:`SealedReader` does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        with self._path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                self._digest.update(piece)
                self.bytes += len(piece)
                yield piece

    def check(self) -> None:
        """Its checksum is all there is."""


class _Measured:
    """Pieces that are counted and hashed as they pass."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = parts
        self._digest = hashlib.sha256()
        self.bytes = 0

    def __iter__(self) -> Iterator[Part]:
        for part in self._parts:
            self._digest.update(part)
            self.bytes += len(part)
            yield part

    @property
    def sha256(self) -> str:
        """Of what has passed."""
        return self._digest.hexdigest()


def unwritable(what: str, error: OSError) -> ContributionError:
    """The error of a full disk or a directory that cannot be written, in words."""
    return ContributionError(
        f"{what} cannot be written: {error}.",
        "Free space in the state directory; the round can then be repeated.",
    )
