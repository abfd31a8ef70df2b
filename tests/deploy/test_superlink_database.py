"""Flower's own database, where another connection writes to it for longer than Flower would wait."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from sqlalchemy.engine import make_url

from deploy.superlink_database import PATIENCE_SECONDS, patient_database


def patience_of(database: str) -> list[int]:
    """Milliseconds that Flower's connections wait for others: of a new one, and when it is used again."""
    store = SqlObjectStore(database)
    store.initialize()
    assert store._engine is not None
    found = [store.query("PRAGMA busy_timeout")[0]["timeout"] for _ in range(2)]
    store._engine.dispose()
    return found


def test_flower_itself_gives_up_early(tmp_path: Path) -> None:
    """What the plugin is for: a path, and a URL with a timeout, are both waited for 5 s. If not, drop it."""
    path = tmp_path / "state.db"
    assert patience_of(str(path)) == [5000, 5000]
    assert patience_of(f"sqlite:///{path}?timeout=60") == [5000, 5000]


def test_with_the_plugin_it_waits(tmp_path: Path) -> None:
    """It is the same file, every connection of Flower's waits for a minute, and its other settings stay."""
    path = tmp_path / "with blanks and ü" / "state.db"
    path.parent.mkdir()
    database = patient_database(path)
    assert make_url(database).database == str(path)
    assert patience_of(database) == [1000 * PATIENCE_SECONDS] * 2
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM objects").fetchone() == (0,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_path_that_is_no_part_of_a_url(tmp_path: Path) -> None:
    """It is named as it is, since the file must be the one that Reconsent looks at, empties and backs up."""
    for name in ("a?b", "a#b", "a%20b"):
        assert patient_database(tmp_path / name) == str(tmp_path / name)
