"""The state directory: everything a server must find again after it was killed."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from reconsent.environment import DATABASE_VARIABLE
from reconsent.errors import StateError
from server.persistence.engine import build_engine, explain
from server.persistence.lock import DirectoryLock
from server.persistence.schema import check_schema

DATABASE = "state.sqlite"
KEYS = "keys"
"""Directory of the keys of sites, which backups leave out."""
LOCK = "server.lock"
RESTORING = "restore-unfinished"
"""File that is there from before a restore begins until every erasure is applied again."""


class StateDirectory:
    """The database and the array files of one consortium's server.

    It guarantees that a transaction whose :meth:`session` block was left without an error is there after
    ``kill -9``, and that one that was interrupted has left no trace in the database. It does not guarantee
    anything against a disk that acknowledges writes it has not made.

    Open it with :meth:`open`, preferably as a context manager.
    """

    def __init__(self, path: Path, engine: Engine, lock: DirectoryLock | None, *, writable: bool) -> None:
        self.path = path
        self.models_dir = path / "models"
        self.contributions_dir = path / "contributions"
        self.keys_dir = path / KEYS
        self.writable = writable
        self.engine = engine
        sqlite = engine.url.get_backend_name() == "sqlite"
        # Else each query would see what was committed just before it, not what the first one saw.
        reading = {"begin": "DEFERRED"} if sqlite else {"isolation_level": "REPEATABLE READ"}
        self._readers = engine.execution_options(**reading)
        self._lock = lock
        self._local = threading.local()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        url: str | None = None,
        writable: bool = True,
        exclusive: bool = True,
        clearing: bool = False,
        restoring: bool = False,
    ) -> StateDirectory:
        """Open a state directory.

        Parameters
        ----------
        path
            The directory; created if missing (readable by its owner only: updates are personal data).
        url
            The database; ``RECONSENT_DATABASE_URL`` if ``None``, a file in the directory if that is empty
            too. Arrays stay in the directory in any case.
        writable
            ``False`` to look only, also while a server runs.
        exclusive
            Hold the directory as its server, which also creates and upgrades the database. ``False`` to
            write short transactions beside a running server (to file a withdrawal).
        clearing
            Hold the directory only to clear up: a server that starts meanwhile waits for the end of it.
        restoring
            Open it although a restore is not finished: only for the restore itself.

        Raises
        ------
        StateError
            If another server holds the directory; a restore of it was cut off; the disk is full; a
            permission is missing; the database is damaged, missing (when only looking), or of a newer
            release.
        """
        path = Path(path).absolute()
        target = _database_url(path, url)
        owner = writable and exclusive
        if not owner and not path.is_dir():
            raise StateError(f"There is no state directory {path}.", "Check the path.")
        if not restoring and (path / RESTORING).exists():
            raise StateError(
                f"The restore of the state directory {path} was cut off: whoever was erased since the backup "
                "could still be in it.",
                "Run the same `reconsent restore` again; it begins anew.",
            )
        with ExitStack() as undo, explaining_os_errors(f"The state directory {path}"):
            lock = None
            if owner:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = DirectoryLock(path / LOCK, clearing=clearing)
                undo.callback(lock.release)
                for part in ("models", "contributions", KEYS):
                    (path / part).mkdir(mode=0o700, exist_ok=True)
            elif target.get_backend_name() == "sqlite" and not Path(target.database or "").is_file():
                raise StateError(
                    f"There is no database in the state directory {path}.", "Start the server there first."
                )
            if writable and target.get_backend_name() == "sqlite":
                _check_writable(Path(target.database or ""))
            engine = build_engine(target, writable=writable)
            undo.callback(engine.dispose)
            state = cls(path, engine, lock, writable=writable)
            state._check(upgrade=owner)
            undo.pop_all()
        return state

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and let another server in. A second call does nothing."""
        self.engine.dispose()
        if self._lock is not None:
            self._lock.release()

    @property
    def database(self) -> str:
        """The database, for messages, without its password."""
        url = self.engine.url
        return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string()

    @contextmanager
    def session(self, session: Session | None = None) -> Iterator[Session]:
        """A transaction: committed when the block is left, rolled back when it raises.

        Parameters
        ----------
        session
            A transaction to take part in instead; it is neither committed nor rolled back here.

        Notes
        -----
        Inside an open transaction of the same thread this is a savepoint of it, rolled back alone if the
        block raises: waiting for the thread's own write lock would never end.

        Raises
        ------
        StateError
            If the database fails (disk full, permission, damage) or was opened for reading.
        """
        if session is not None:
            yield session
            return
        outer: Session | None = getattr(self._local, "session", None)
        if outer is not None:
            with outer.begin_nested():
                yield outer
            return
        if not self.writable:
            raise StateError(
                f"The state directory {self.path} was opened for reading.",
                "Open it for writing to change it.",
            )
        with self._explaining(), Session(self.engine, expire_on_commit=False) as own:
            self._local.session = own
            try:
                with own.begin():
                    yield own
            finally:
                self._local.session = None
            for action in own.info.pop("after_commit", []):
                action()

    @contextmanager
    def reading(self, session: Session | None = None) -> Iterator[Session]:
        """A consistent view of the database, that of its first query; never waits for a writer.

        Inside an open transaction (``session``, or one of this thread) it sees what that has written.
        """
        joined = session or getattr(self._local, "session", None)
        if joined is not None:
            yield joined
            return
        with self._explaining(), Session(self._readers, expire_on_commit=False) as own, own.begin():
            yield own

    def scrub(self) -> bool:
        """Take what was deleted out of the database's log of writes too.

        Deleted rows are overwritten in SQLite's own pages at once (``secure_delete``), but their former pages
        stand in the log until it is emptied. PostgreSQL keeps deleted rows until its ``VACUUM``, and its log
        for as long as it is told to; nothing is done there.

        Returns
        -------
        Whether it is done; not if somebody has been reading an old view all the while, or the disk is full.
        """
        if self.engine.url.get_backend_name() != "sqlite":
            return True
        with self._explaining(), self.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None  # noqa: S101 - an open connection has one
            try:
                busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.OperationalError:
                return False
        return not busy

    @staticmethod
    def after_commit(session: Session, action: Callable[[], None]) -> None:
        """Do ``action`` once ``session`` is committed: for files that only a committed change makes void.

        If the process dies in between, the action is lost; it must be one that can be made up for.
        """
        session.info.setdefault("after_commit", []).append(action)

    def _check(self, *, upgrade: bool) -> None:
        with self._explaining():
            if self.engine.url.get_backend_name() == "sqlite":
                with self._readers.connect() as connection:
                    verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
                if verdict != "ok":
                    raise StateError(
                        f"The database {self.database} is damaged: {verdict}.",
                        "Restore it from a backup; do not go on with it.",
                    )
            engine = self.engine if upgrade else self._readers
            with engine.begin() as connection:
                check_schema(connection, where=f"The database {self.database}", upgrade=upgrade)

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            explained = explain(error, self.database)
            if explained is None:
                raise
            raise explained from error


@contextmanager
def explaining_os_errors(what: str) -> Iterator[None]:
    """Turn an ``OSError`` into a :class:`StateError` that says what to do.

    Parameters
    ----------
    what
        What cannot be used, with its path; begins the message.
    """
    remedies = {
        errno.ENOSPC: "Free space on that disk and start again; what was committed is safe.",
        errno.EDQUOT: "The disk quota is used up; free space and start again.",
        errno.EFBIG: "A limit on the size of files is set for this process; raise it.",
        errno.EROFS: "That disk is mounted read-only; choose another state directory.",
    }
    access = "Check the path, its owner and its permissions."
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        raise StateError(
            f"{what} cannot be used: {cause}.", remedies.get(error.errno or 0, access)
        ) from error


def _check_writable(database: Path) -> None:
    # SQLite itself finds out at the first commit only, which may be hours later.
    for file in (database, Path(f"{database}-wal"), Path(f"{database}-shm")):
        if file.exists() and not os.access(file, os.W_OK):
            raise PermissionError(errno.EACCES, f"{file.name} may not be written")


def _database_url(path: Path, url: str | None) -> URL:
    given = url if url is not None else os.environ.get(DATABASE_VARIABLE, "")
    if not given:
        return URL.create("sqlite", database=str(path / DATABASE))
    try:
        return make_url(given)
    except ArgumentError:
        # The text may hold a password, so it is not repeated.
        raise StateError(
            "The database URL is not one.", "Write it as postgresql+psycopg://user:password@host/database."
        ) from None
