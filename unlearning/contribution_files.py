"""The files of the contribution cache: written with their checksum, and read only if it is still right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconsent.errors import ContributionError
from reconsent.files import AtomicWrites, sha256_of
from unlearning.parameters import Vector
from unlearning.vector_files import VectorType, decode, encode


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the cache, as the index knows it.

    Attributes
    ----------
    site, round
        Whose contributions, and up to or of which round.
    path
        Relative to the cache's directory; empty if only the numbers are kept.
    sha256, bytes, dtype
        Of its content.
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


class ContributionFiles:
    """Reads and writes the files below the cache's directory; used by several threads at once.

    Parameters
    ----------
    directory
        Of the cache.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(
        self,
        writes: AtomicWrites,
        site: str,
        round_: int,
        kind: str,
        vectors: Mapping[str, Vector],
        dtype: VectorType,
    ) -> StoredFile:
        """Write a file that is there for good when ``writes`` ends.

        Raises
        ------
        ContributionError
            If it cannot be written.
        """
        parts = encode(vectors, dtype)
        path = f"{site}/{kind}-{round_:06d}.safetensors"
        try:
            writes.write(self._directory / path, parts)
        except OSError as error:
            raise unwritable(f"The contribution of site '{site}' of round {round_}", error) from error
        return StoredFile(site, round_, path, sha256_of(*parts), sum(map(len, parts)), dtype)

    def read(self, file: StoredFile) -> dict[str, Vector]:
        """The vectors ``(P,)`` of a file; read-only where they need no conversion.

        Raises
        ------
        ContributionError
            If it is missing, truncated or altered.
        """
        path = self._directory / file.path
        what = f"The contribution of site '{file.site}' up to round {file.round} ({path})"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ContributionError(
                f"{what} cannot be read: {error.strerror}.", "Restore it from a backup."
            ) from error
        if sha256_of(content) != file.sha256:
            kind = "truncated" if len(content) < file.bytes else "altered"
            raise ContributionError(
                f"{what} is {kind}: its checksum is not the recorded one.",
                "It is not used. Restore it from a backup, or unlearn by a method that needs no cache.",
            )
        return decode(content)


def unwritable(what: str, error: OSError) -> ContributionError:
    """The error of a full disk or a directory that cannot be written, in words."""
    return ContributionError(
        f"{what} cannot be written: {error}.",
        "Free space in the state directory; the round can then be repeated.",
    )
