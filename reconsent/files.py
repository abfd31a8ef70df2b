"""Files that are either whole or absent, whatever happens to the process."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

Part = bytes | memoryview
"""A piece of a file's content. A view (of single bytes) is written without being copied."""

SYNCING_THREADS = 8
"""Files that wait for the disk at the same time: a journalling file system flushes them together."""


class AtomicWrites:
    """Several files that are written together, each whole or absent after a crash.

    On leaving the ``with`` block every file is flushed to the disk, then renamed to its name, then the
    directories are flushed; only then are they all there for good. Flushed together, they cost little
    more than one. If the block raises, none appears.

    Raises
    ------
    OSError
        If the disk is full or a directory is not writable; files that stood under the names stay.
    """

    def __init__(self) -> None:
        self._temporary: dict[Path, Path] = {}
        self._lock = threading.Lock()

    def write(self, path: Path, parts: Iterable[Part]) -> None:
        """Write ``path`` piece by piece; may be called by several threads at once, for different paths."""
        with self._lock:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._temporary.setdefault(path, _temporary(path))
        try:
            with temporary.open("wb", buffering=0) as file:
                for part in parts:
                    write_whole(file.fileno(), part)
        except OSError as error:
            # Of a full disk the system says neither where nor, with a temporary name, what was to be written.
            error.filename = str(path)
            raise

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make the files last, or remove them after an error."""
        try:
            if kind is None:
                _each(_sync, self._temporary.values())
                for path, temporary in self._temporary.items():
                    temporary.replace(path)
                _each(sync_directory, {path.parent for path in self._temporary})
        finally:
            # None is left unless something failed.
            for temporary in self._temporary.values():
                temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: Part) -> None:
    """Write ``content`` to ``path`` so that a crash leaves the old file or the new one, never a part.

    The bytes go to a temporary neighbour, are flushed to the disk, and are renamed over ``path``;
    then the directory itself is flushed, so that the name survives a power cut too.

    Raises
    ------
    OSError
        If the disk is full or the directory is not writable; ``path`` is untouched then.
    """
    with AtomicWrites() as files:
        files.write(path, [content])


def write_private(path: Path, content: bytes) -> None:
    """Write a secret so that nobody else can ever read it, and that it is whole or absent after a crash.

    Raises
    ------
    OSError
        If the disk is full or the directory is not writable.
    """
    temporary = _temporary(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def read_or_make_secret(path: Path, size: int) -> bytes:
    """The secret in a file; if there is none, ``size`` random bytes that nobody else can read (mode 600).

    Of two processes that make it at once, one does, and both read the same. What a file holds that was there
    already is returned as it is, whatever its length.

    Raises
    ------
    OSError
        If it cannot be read or made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        made = _temporary(path)
        try:
            write_private(made, secrets.token_bytes(size))
            # A link, unlike a replacement, fails if another process made the secret first.
            with suppress(FileExistsError):
                path.hardlink_to(made)
        finally:
            made.unlink(missing_ok=True)
        sync_directory(path.parent)
    return path.read_bytes()


def shred(path: Path) -> None:
    """Overwrite a file where it lies, then unlink it; one that is gone already does not matter.

    A copy-on-write file system, a solid-state disk or a snapshot may keep the old bytes elsewhere.

    Raises
    ------
    OSError
        If it cannot be written or unlinked.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        write_whole(descriptor, bytes(os.fstat(descriptor).st_size))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def unlink_all(paths: Iterable[Path]) -> None:
    """Unlink ``paths``; those already gone do not matter."""
    _each(lambda path: path.unlink(missing_ok=True), paths)


def write_whole(descriptor: int, content: Part) -> None:
    """Write all of ``content``, however often the system has to be asked."""
    rest = memoryview(content)
    while rest.nbytes:
        rest = rest[os.write(descriptor, rest) :]


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries to the disk."""
    _sync(directory, os.O_RDONLY)


def sha256_of(*parts: Part) -> str:
    """Hexadecimal SHA-256 of ``parts``, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _temporary(path: Path) -> Path:
    # In containers, processes that write to one directory may have the same number.
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")


def _sync(path: Path, flags: int = os.O_RDWR) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _each(action: Callable[[Path], None], paths: Iterable[Path]) -> None:
    found = list(paths)
    if len(found) < 2:
        for path in found:
            action(path)
        return
    with ThreadPoolExecutor(min(len(found), SYNCING_THREADS)) as threads:
        list(threads.map(action, found))
