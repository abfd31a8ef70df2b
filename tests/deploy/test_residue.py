"""The SuperLink's database: what was in a message is in no byte of its files after a purge."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from deploy.readiness import release
from deploy.residue import Residue, purge, purged_copy, residue_of
from reconsent.errors import DeployError

MARKER = b"an update that can be recognised" * 64


def without_messages(path: Path) -> None:
    """A database as Flower's own code makes it, which takes it seconds."""
    from flwr.server.superlink.linkstate import SqlLinkState
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.superlink.federation import NoOpFederationManager

    store = ObjectStoreFactory(str(path)).store()
    SqlLinkState(str(path), NoOpFederationManager(), store).initialize()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def crashed(path: Path) -> None:
    """Add a node, and what a crash leaves of messages."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("INSERT INTO objects VALUES ('a', ?, 1, 1)", (MARKER,))
        connection.execute("INSERT INTO objects VALUES ('b', ?, 1, 1)", (MARKER,))
        connection.execute("INSERT INTO object_children VALUES ('a', 'b')")
        connection.execute("INSERT INTO message_res (message_id, content) VALUES ('m', ?)", (MARKER,))
        connection.execute("INSERT INTO node (node_id, name) VALUES (7, 'north')")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flower") / "state.db"
    without_messages(path)
    return path


@pytest.fixture
def database(empty: Path, tmp_path: Path) -> Path:
    """Of a SuperLink that crashed."""
    path = tmp_path / "state.db"
    shutil.copy(empty, path)
    crashed(path)
    return path


def running(path: Path) -> sqlite3.Connection:
    """A connection that stays open, as the SuperLink's does."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("SELECT count(*) FROM node").fetchone()
    return connection


def files(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def test_purged_to_the_last_byte(database: Path) -> None:
    """After a purge, beside an open SuperLink, no byte of a message is in database or log; nodes stay."""
    with closing(running(database)) as other:
        assert residue_of(database) == Residue(3, 3 * len(MARKER))
        assert MARKER in files(database)
        assert purge(database) == Residue(3, 3 * len(MARKER))
        assert MARKER[:16] not in files(database)
        assert other.execute("SELECT name FROM node").fetchall() == [("north",)]
    assert residue_of(database) == Residue()


def test_what_flower_had_deleted_goes_too(database: Path) -> None:
    """Messages that were deleted without overwriting them are still in the file, and gone after a purge."""
    with closing(running(database)) as other:
        other.execute("PRAGMA secure_delete = OFF")
        for table in ("object_children", "objects", "message_res"):
            other.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert MARKER in files(database), "deleting alone does not remove it"
        assert purge(database) == Residue()
        assert MARKER[:16] not in files(database)


def test_messages_of_a_run_under_way_are_left_alone(database: Path) -> None:
    """While a run is under way a purge is refused; if the SuperLink is stopped, nothing is under way."""
    with closing(sqlite3.connect(database)) as connection, connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(task)") if row[3] or row[5]]
        values = ", ".join("1" for _ in names)
        connection.execute(f"INSERT INTO task ({', '.join(names)}) VALUES ({values})")  # noqa: S608
    with pytest.raises(DeployError, match="under way"):
        purge(database, patience=0.1)
    assert residue_of(database).rows == 3
    assert purge(database, stopped=True).rows == 3
    assert MARKER[:16] not in files(database)


def test_a_reader_that_stays_is_named(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If somebody reads an old view all the while, the purge says that it is not done."""
    monkeypatch.setattr("deploy.residue.BUSY_SECONDS", 0.1)
    with closing(running(database)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM node").fetchone()
        with pytest.raises(DeployError, match=r"keeps reading|locked"):
            purge(database)
    assert purge(database).rows in (0, 3)
    assert MARKER[:16] not in files(database)


def test_copy_without_messages(database: Path, tmp_path: Path) -> None:
    """The copy for a backup has nodes and no message, in one file; the original keeps its messages."""
    copy = tmp_path / "copy" / "state.db"
    copy.parent.mkdir()
    purged_copy(database, copy)
    assert [path.name for path in copy.parent.iterdir()] == ["state.db"]
    assert MARKER[:16] not in copy.read_bytes()
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT name FROM node").fetchall() == [("north",)]
    assert residue_of(database).rows == 3


def test_no_database_and_no_database_at_all(tmp_path: Path) -> None:
    """Without a database there is nothing to do; a file that is none is named."""
    assert purge(tmp_path / "none.db") == Residue()
    (tmp_path / "none.db").write_bytes(b"this is not a database at all" * 100)
    with pytest.raises(DeployError, match="cannot be purged"):
        purge(tmp_path / "none.db")


def test_nodes_that_died_are_known_to_be_gone(database: Path) -> None:
    """After a crash the named nodes count as offline at once; those that go on running do not."""
    later = time.time() + 60
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE node SET status = 'online', online_until = ?", (later,))
        connection.execute(
            "INSERT INTO node (node_id, name, status, online_until) VALUES (8, 'south', 'online', ?)",
            (later,),
        )
    release(database, ["north", "west"])
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT name, status, online_until <= ? FROM node", (time.time(),))
        assert found.fetchall() == [("north", "offline", 1), ("south", "online", 0)]
    release(database.with_name("none.db"), ["north"])
    assert not database.with_name("none.db").exists()
