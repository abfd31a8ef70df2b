"""Reads an evidence bundle: a directory, or the archive it came in. Nothing of it is believed yet."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from reconsent.errors import SignatureError

LARGEST = 64 * 2**20
"""Bytes of a file, and of all files of an archive together, that are read: more than any bundle has."""
AGAIN = "Get the whole bundle again from whoever issued it."


class Bundle:
    """The files of a bundle, by their names in it; read when they are wanted.

    Parameters
    ----------
    where
        What it is called in errors.
    names
        Every file that is there; one that is there twice, twice.
    read
        The content of one; raises OSError if there is none to be had.
    in_archive
        The names begin with that of the directory, and what lies beside it was added.

    Raises
    ------
    SignatureError
        If there is no certificate in it, or several.
    """

    def __init__(
        self, where: str, names: Sequence[str], read: Callable[[str], bytes], *, in_archive: bool = False
    ) -> None:
        certificates = {name for name in names if PurePosixPath(name).match("certificate*.dsse.json")}
        found = [name for name in certificates if name.count("/") <= int(in_archive)]
        if len(found) != 1:
            raise SignatureError(
                f"{where} holds {len(found)} signed certificates (certificate.dsse.json).",
                "A bundle holds one." if found else AGAIN,
            )
        above, _, self.signed = found[0].rpartition("/")
        self._names = {_inner(name, above): name for name in names}
        self._read = read
        self.doubled = sorted({_inner(name, above) for name in names if names.count(name) > 1})
        """Files that are there twice: which one a reader sees is anybody's guess."""

    @classmethod
    def at(cls, path: Path) -> Bundle:
        """The bundle in a directory, or in a zip archive.

        Raises
        ------
        SignatureError
            If it is neither, or as of the class.
        """
        if path.is_dir():
            there = sorted(entry for entry in path.rglob("*") if entry.is_symlink() or not entry.is_dir())
            names = [entry.relative_to(path).as_posix() for entry in there]
            return cls(str(path), names, lambda name: _file(path / name))
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SignatureError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None
        return cls.of_archive(content, str(path))

    @classmethod
    def of_archive(cls, content: bytes, where: str = "The archive") -> Bundle:
        """The bundle in the bytes of a zip archive.

        Raises
        ------
        SignatureError
            If it cannot be read, is too large, or as of the class.
        """
        try:
            archive = zipfile.ZipFile(io.BytesIO(content))
            inside = [entry for entry in archive.infolist() if not entry.is_dir()]
            size = sum(entry.file_size for entry in inside)
            if size > LARGEST:
                raise OSError(f"it says it holds {size} bytes")
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise SignatureError(f"{where} is no readable bundle: {error}.", AGAIN) from None
        return cls(where, [entry.filename for entry in inside], archive.read, in_archive=True)

    @classmethod
    def of_files(cls, files: Mapping[str, bytes], where: str) -> Bundle:
        """The bundle of files that are at hand."""
        return cls(where, list(files), files.__getitem__)

    @property
    def names(self) -> set[str]:
        """Of all files that are there."""
        return set(self._names)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises
        ------
        SignatureError
            If it cannot be read, or is no regular file, or larger than any is.
        """
        try:
            return self._read(self._names[name])
        # zipfile has the last three for archives that are encrypted, packed in an unknown way, or malformed.
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError) as error:
            raise SignatureError(f"{name} cannot be read: {error}.", AGAIN) from None


def is_archive(content: bytes) -> bool:
    """Whether these are the bytes of a zip archive."""
    return zipfile.is_zipfile(io.BytesIO(content))


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is a directory or an archive, and no signed file alone."""
    return path.is_dir() or (path.is_file() and zipfile.is_zipfile(path))


def find_signed(path: Path) -> Path:
    """The signed file at ``path``: itself, or the one in that directory.

    Raises
    ------
    SignatureError
        If there is none.
    """
    if path.is_dir():
        return path / Bundle.at(path).signed
    if not path.is_file():
        raise SignatureError(f"There is no certificate {path}.", "Check the path.")
    if zipfile.is_zipfile(path):
        raise SignatureError(f"{path} is an archive.", "Unpack it, and give the directory in it.")
    return path


def shown(name: str) -> str:
    """A file's name as a terminal may show it, whoever chose it."""
    return name if name.isprintable() else ascii(name)


def _file(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
        raise OSError("it is a link, no regular file, or too large")
    return path.read_bytes()


def _inner(name: str, above: str) -> str:
    if not above:
        return name
    return name.removeprefix(f"{above}/") if name.startswith(f"{above}/") else f"../{name}"
