"""A consistent copy of a state directory while a server works in it, and the way back."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from reconsent.errors import StateError
from reconsent.files import sync_directory, write_atomically
from server.persistence.own_checkpoints import CHECKPOINT_FILE
from server.persistence.state import DATABASE, KEYS, RESTORING, StateDirectory, explaining_os_errors

MANIFEST = "manifest.json"
FORMAT = 1
STAGING = ".backup-"
"""Beginning of the directory in which a backup is put together; the next removes one that was cut off."""

PARTS = ("models", "contributions", "unlearning")
"""Directories whose files the database names. Files are whole and never changed, only replaced."""

BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds.

    Attributes
    ----------
    made_at
        When, ISO 8601, UTC.
    files
        Path below the backup → ``[bytes, SHA-256]``.
    erased
        Withdrawals that had erased something when it was made.
    format
        Of this description.
    """

    made_at: str
    files: dict[str, tuple[int, str]]
    erased: tuple[str, ...]
    format: int = FORMAT

    @classmethod
    def read(cls, backup: Path) -> Self:
        """The manifest of a backup.

        Raises
        ------
        StateError
            If there is none, or it is of a newer release.
        """
        path = backup / MANIFEST
        try:
            table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if table["format"] != FORMAT:
                raise StateError(f"{path} has format {table['format']}.", "Use the release that wrote it.")
            files = {name: (int(size), str(digest)) for name, (size, digest) in table["files"].items()}
            return cls(str(table["made_at"]), files, tuple(table["erased"]))
        except FileNotFoundError:
            raise StateError(f"{backup} is no backup: it has no {MANIFEST}.", "Check the path.") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"The manifest of the backup {backup} is damaged: {error}.", "Take another backup."
            ) from None

    def problems(self, backup: Path) -> list[str]:
        """Files of the backup that are missing, truncated or altered, in words; empty if it is whole."""
        found = []
        for name, (size, digest) in sorted(self.files.items()):
            path = backup / name
            if not path.is_file():
                found.append(f"{name} is missing")
            elif path.stat().st_size != size:
                found.append(f"{name} has {path.stat().st_size} bytes instead of {size}")
            elif _sha256(path) != digest:
                found.append(f"{name} is altered")
        return found


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A restore that was begun and is not finished, as the file :data:`RESTORING` tells it.

    Attributes
    ----------
    made
        What it puts into the state directory and was not there before, by path below it.
    keys_kept
        Whether ``keys/`` had been there before it.
    """

    made: tuple[str, ...]
    keys_kept: bool

    @classmethod
    def read(cls, target: Path) -> Self | None:
        """The one of a state directory, if there is one.

        Raises
        ------
        StateError
            If the file is damaged.
        """
        path = target / RESTORING
        try:
            table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(tuple(str(name) for name in table["made"]), bool(table["keys_kept"]))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"{path} cannot be read: {error}.",
                f"Move {target} away, but for its keys/, and restore again.",
            ) from None

    def remove(self, target: Path) -> None:
        """Remove what it has put there; keys stay."""
        for path in target.glob(f"{DATABASE}*"):
            _remove(path)
        for name in {*self.made, *PARTS} - {KEYS}:
            _remove(target / name)


def make_backup(
    state: StateDirectory, target: Path, others: Callable[[Path], Mapping[str, Path]], erased: list[str]
) -> Manifest:
    """Copy a state to ``target``, which is made; a server may be at work meanwhile.

    The database is copied by SQLite's own means; the files that it names are held by a second name, in the
    same moment, in which no round can be committed; they are copied to ``target`` afterwards.

    Parameters
    ----------
    state
        Opened for writing.
    target
        Directory; must not exist, or be empty.
    others
        Told an empty directory in the state directory that is removed at the end, or by the next backup, says
        which further files there are, by their path below the backup.
    erased
        Withdrawals that have erased something so far.

    Raises
    ------
    StateError
        If the database is not SQLite's, the target holds something, or a disk is full; the target is empty
        then, as it was.
    """
    if state.engine.url.get_backend_name() != "sqlite":
        raise StateError(
            f"The database {state.database} is not in the state directory.",
            f"When no run is under way, copy {CHECKPOINT_FILE} of the state directory first, then the "
            "database by its own means (pg_dump), then the rest of the directory without its keys/: beside a "
            "newer checkpoint the copy of the ledger would look cut off.",
        )
    with explaining_os_errors(f"The backup {target}"):
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise StateError(f"{target} is not empty.", "Name a new directory for each backup.")
        with _nothing_left(target), _staging(state) as staging:
            further = others(_made(staging / "others"))
            held = _made(staging / "state")
            _hold(state, held)
            sources = {str(path.relative_to(held)): path for path in sorted(held.rglob("*"))}
            sources = {name: path for name, path in {**sources, **further}.items() if path.is_file()}
            files = {name: _copy(path, target / name) for name, path in sorted(sources.items())}
            manifest = Manifest(dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), files, tuple(erased))
            # Last: a backup without a manifest was cut off, and is none.
            write_atomically(target / MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
    return manifest


def discard_backup(target: Path) -> None:
    """Remove what :func:`make_backup` has written, so that the same command can make it anew."""
    for path in target.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def _nothing_left(target: Path) -> Iterator[None]:
    """Half a backup holds updates and is good for nothing: it goes, whatever keeps it from being finished."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            discard_backup(target)
        raise


def restore_backup(backup: Path, target: Path) -> Manifest:
    """Copy a backup to a state directory that does not exist yet, or holds nothing but keys.

    Until :func:`finish_restore` nobody else can open it. What a restore that was cut off has left is removed.

    Raises
    ------
    StateError
        If a file of the backup is missing or altered, the target holds a state, or a disk is full. The
        target is as it was then.
    """
    manifest = Manifest.read(backup)
    for name in manifest.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise StateError(f"The backup {backup} names a file outside of it: {name}.", "Do not use it.")
    problems = manifest.problems(backup)
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise StateError(
            f"The backup {backup} is damaged: {'; '.join(problems[:5])}{more}.",
            "Nothing was restored. Take another backup.",
        )
    before = Unfinished.read(target)
    if before is not None:
        with explaining_os_errors(f"The state directory {target}"):
            before.remove(target)
    if (target / DATABASE).exists() or any((target / part).is_dir() for part in PARTS):
        raise StateError(
            f"{target} holds a state already.", "Move it away first; leave only its keys/, if it has one."
        )
    with explaining_os_errors(f"The state directory {target}"):
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = Unfinished(
            tuple(sorted({_absent(target, name) for name in manifest.files} - {""})),
            (target / KEYS).is_dir() if before is None else before.keys_kept,
        )
        write_atomically(target / RESTORING, json.dumps(asdict(unfinished)).encode())
        # One that was left behind is of the state that was moved away.
        (target / CHECKPOINT_FILE).unlink(missing_ok=True)
        try:
            # The database last: without it there is no state, however this is cut off.
            for name in sorted(manifest.files, key=lambda name: name == DATABASE):
                size, digest = _copy(backup / name, target / name)
                if (size, digest) != manifest.files[name]:
                    raise StateError(f"{name} changed while it was copied.", "Repeat it.")
        except BaseException:
            unfinished.remove(target)
            if before is None:
                finish_restore(target)
            raise
    return manifest


def finish_restore(target: Path) -> None:
    """Let a restored state be opened: the last step, after every erasure is applied again."""
    with explaining_os_errors(f"The state directory {target}"):
        (target / RESTORING).unlink(missing_ok=True)
        sync_directory(target)


@contextmanager
def _staging(state: StateDirectory) -> Iterator[Path]:
    """A directory in which a backup is put together."""
    for left in state.path.glob(f"{STAGING}*"):
        shutil.rmtree(left)
    staging = _made(state.path / f"{STAGING}{os.getpid()}")
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _hold(state: StateDirectory, target: Path) -> None:
    """Put the database and second names of the files it names into ``target``, as of one moment."""
    with state.session() as session:
        # Whoever holds the write lock sees to it that files and database stay as they are. A session
        # takes it with its first statement, not before.
        session.connection()
        # Of this moment too: a newer one would be of entries that the copy of the database lacks.
        with suppress(FileNotFoundError):
            (target / CHECKPOINT_FILE).hardlink_to(state.path / CHECKPOINT_FILE)
        with (
            closing(sqlite3.connect(f"file:{state.path / DATABASE}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target / DATABASE)) as copy,
        ):
            source.backup(copy)
        for part in PARTS:
            for path in (state.path / part).rglob("*"):
                if path.is_file() and not path.name.endswith(".part"):
                    held = target / path.relative_to(state.path)
                    held.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    # A server removes files after the commit by which no row names them any more.
                    with suppress(FileNotFoundError):
                        held.hardlink_to(path)


def _made(directory: Path) -> Path:
    directory.mkdir(mode=0o700)
    return directory


def _copy(source: Path, target: Path) -> tuple[int, str]:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with source.open("rb") as reading, os.fdopen(descriptor, "wb") as writing:
        while block := reading.read(BLOCK):
            digest.update(block)
            size += writing.write(block)
        writing.flush()
        os.fsync(writing.fileno())
    return size, digest.hexdigest()


def _absent(target: Path, name: str) -> str:
    """The highest directory of ``name`` that ``target`` has not, or ``name`` itself; empty if it has all."""
    path = PurePosixPath(name)
    for part in (*reversed(path.parents), path):
        if not (target / part).exists():
            return str(part)
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
