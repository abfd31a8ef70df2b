"""The database connection: what makes a commit durable, and errors in words."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, NoSuchModuleError

from reconsent.errors import StateError
from server.persistence.json_values import dump_json, load_json

BUSY_MILLISECONDS = 20_000
"""How long a writer waits for another one's transaction."""

_REMEDIES = {
    "SQLITE_FULL": ("the disk is full", "Free space and start again; what was committed is safe."),
    "SQLITE_READONLY": ("it may not be written", "Check the owner and the permissions of its files."),
    "SQLITE_CANTOPEN": ("it cannot be opened", "Check the path and the permissions of its directory."),
    "SQLITE_PERM": ("it may not be accessed", "Check the owner and the permissions of its files."),
    "SQLITE_CORRUPT": ("it is damaged", "Restore it from a backup; do not go on with it."),
    "SQLITE_NOTADB": (
        "it is not an SQLite database, or its beginning was overwritten",
        "Restore it from a backup, or choose another state directory.",
    ),
    "SQLITE_IOERR": ("the disk reports an error", "Check the disk and its quota; then start again."),
    "SQLITE_BUSY": ("another process is writing to it", "Try again when that has finished."),
}


def build_engine(url: URL, *, writable: bool) -> Engine:
    """An engine whose transactions are durable when they return.

    SQLite runs with a write-ahead log (readers never wait for the writer), ``synchronous=FULL`` (a commit
    is on the disk before it returns), enforced foreign keys, and overwrites what it deletes. Transactions
    take the write lock when they begin, unless the connection's option ``begin`` says ``DEFERRED``.

    Raises
    ------
    StateError
        If the URL names an SQLite database in memory, or a database whose driver is not installed.
    """
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite and url.database in (None, "", ":memory:"):
        raise StateError(
            f"The database URL {url.render_as_string()} is in memory and would be lost with the process.",
            "Name a file, or leave the URL empty to keep the database in the state directory.",
        )
    try:
        engine = create_engine(
            url, json_serializer=dump_json, json_deserializer=load_json, pool_pre_ping=not sqlite
        )
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StateError(
            f"The database {url.render_as_string()} cannot be used: {error}.",
            "Install its driver; for PostgreSQL: pip install 'psycopg[binary]', and a URL that begins with "
            "postgresql+psycopg://.",
        ) from error
    if sqlite:
        _configure_sqlite(engine, writable=writable)
    return engine


def _configure_sqlite(engine: Engine, *, writable: bool) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver would begin transactions late and leave DDL out of them; "begin" below does it instead.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        if writable:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise StateError(
                    f"The file system of {engine.url.database} does not support a write-ahead log "
                    f"(SQLite stays in mode '{mode}').",
                    "Put the state directory on a local disk, not on a network share.",
                )
        else:
            connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # A transaction that reads first and then writes would fail at once if another wrote in between.
        mode = connection.get_execution_options().get("begin", "IMMEDIATE" if writable else "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")


def explain(error: DBAPIError, where: str) -> StateError | None:
    """The error in words, or ``None`` for a violated constraint, which is the caller's to handle.

    Parameters
    ----------
    error
        What SQLAlchemy raised.
    where
        The database, for the message.
    """
    if isinstance(error, IntegrityError):
        return None
    name = getattr(error.orig, "sqlite_errorname", "")
    for prefix, (problem, remedy) in _REMEDIES.items():
        if name.startswith(prefix):
            return StateError(f"The database {where} cannot be used: {problem} ({error.orig}).", remedy)
    return StateError(f"The database {where} refuses: {error.orig}.", "Check that it is up and reachable.")
