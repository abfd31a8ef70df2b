"""What Flower's SuperLink keeps of messages, and with them of sites' updates; and how it is really removed.

The SuperLink stores every message in its own database, clears it late, after a crash not at all, and leaves
the bytes of what it has deleted in free pages and in the log of writes. They are gone only after deleting,
rebuilding the file, and emptying the log, in this order: rebuilding writes its image to the log first.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconsent.errors import DeployError

CONTENTS = (
    "object_push_session_pending",
    "object_push_session_roots",
    "object_push_sessions",
    "object_children",
    "run_objects",
    "objects",
    "message_ins",
    "message_res",
    "task_message",
)
"""Tables that hold messages, or lead to them. Nodes, runs, logs and the app's code stay."""

BUSY_SECONDS = 10.0
POLL_SECONDS = 0.25


class RunUnderWayError(DeployError):
    """It cannot be done while a run is under way, which will have ended some time."""


@dataclass(frozen=True, slots=True)
class Residue:
    """What the SuperLink's database holds, or held.

    Attributes
    ----------
    rows
        Objects and messages; a reply with an update is several.
    bytes
        Of their contents.
    """

    rows: int = 0
    bytes: int = 0


def residue_of(database: Path) -> Residue:
    """What is there now; nothing if there is no database.

    Raises
    ------
    DeployError
        If the database cannot be read.
    """
    if not database.is_file():
        return Residue()
    with _explaining(database), closing(_connect(database)) as connection:
        return _count(connection)


def purge(database: Path, *, patience: float = BUSY_SECONDS, stopped: bool = False) -> Residue:
    """Remove every message from a SuperLink's database, so that no byte of them stays in its files.

    The SuperLink may run meanwhile, as long as it runs no app.

    Parameters
    ----------
    database
        Its file.
    patience
        Seconds to wait for a run that is just ending.
    stopped
        The SuperLink does not run: what it calls unfinished has died with it.

    Returns
    -------
    What was there; nothing if there is no database.

    Raises
    ------
    RunUnderWayError
        If a run is under way.
    DeployError
        If the disk is full, or somebody keeps reading the database.
    """
    if not database.is_file():
        return Residue()
    deadline = time.monotonic() + patience
    with _explaining(database), closing(_connect(database)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        while not _idle(connection, stopped=stopped):
            if time.monotonic() > deadline:
                raise RunUnderWayError(
                    "A run is under way, and its messages are still needed.",
                    "Wait until it has ended, and ask again.",
                )
            time.sleep(POLL_SECONDS)
        found = _count(connection)
        for table in _tables(connection):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - one of our own names
        connection.execute("COMMIT")
        connection.execute("VACUUM")
        deadline = time.monotonic() + BUSY_SECONDS
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise DeployError(
                    f"The log of {database} cannot be emptied: somebody keeps reading it.",
                    "Stop the SuperLink, and ask again.",
                )
            time.sleep(POLL_SECONDS)
    return found


def _idle(connection: sqlite3.Connection, *, stopped: bool) -> bool:
    """Begin a transaction in which no run can start, and look whether there is one."""
    connection.execute("BEGIN IMMEDIATE")
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'task'").fetchone()
    if stopped or not known:
        return True
    if connection.execute("SELECT 1 FROM task WHERE finished_at IS NULL").fetchone() is None:
        return True
    connection.execute("ROLLBACK")
    return False


def _count(connection: sqlite3.Connection) -> Residue:
    rows = size = 0
    for table in ("objects", "message_ins", "message_res"):
        if table in _tables(connection):
            count, held = connection.execute(
                f"SELECT count(*), coalesce(sum(length(content)), 0) FROM {table}"  # noqa: S608
            ).fetchone()
            rows, size = rows + count, size + held
    return Residue(rows, size)


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return [table for table in CONTENTS if table in found]


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(database, isolation_level=None, timeout=BUSY_SECONDS)


@contextmanager
def _explaining(database: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DeployError(
            f"The SuperLink's database {database} cannot be purged: {error}.",
            "Free space on its disk, or stop the SuperLink; then `reconsent purge`.",
        ) from error


def purged_copy(database: Path, target: Path) -> None:
    """Copy a SuperLink's database to ``target`` without its messages: nodes and their keys, runs, the app.

    Raises
    ------
    DeployError
        If the disk is full, or the database cannot be read.
    """
    with _explaining(database), closing(_connect(database)) as source, closing(_connect(target)) as copy:
        source.backup(copy)
    purge(target, stopped=True)
    with _explaining(database), closing(_connect(target)) as copy:
        # One file, without a log beside it.
        copy.execute("PRAGMA journal_mode = DELETE")
