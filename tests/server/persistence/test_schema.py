"""The migrations: they make exactly the schema that the code declares."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from reconsent.errors import StateError
from server.persistence import Roster, StateDirectory, schema, tables
from server.persistence.schema import alembic_config, current_revision, newest_revision
from server.persistence.state import DATABASE
from tests.conftest import MIGRATE, remade


@pytest.fixture(autouse=True)
def _all_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alembic itself works on each database of this file."""
    monkeypatch.setattr(schema, "migrate", MIGRATE)


def differences(state: StateDirectory) -> list[object]:
    """What Alembic would change to bring the database to the declared schema."""
    with state.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, tables.Base.metadata))


def objects(state: StateDirectory) -> set[str]:
    """Tables and triggers of the database."""
    with state.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            names = connection.exec_driver_sql("SELECT name FROM sqlite_master")
        else:
            names = connection.exec_driver_sql(
                "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace "
                "UNION SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal"
            )
        return {name for (name,) in names}


def test_migrations_make_the_declared_schema(state: StateDirectory) -> None:
    """Migrating an empty database leaves nothing to change, and nothing undeclared."""
    assert differences(state) == []
    assert set(inspect(state.engine).get_table_names()) == {*tables.Base.metadata.tables, "alembic_version"}


def dump(path: Path) -> list[str]:
    """A SQLite database, as statements."""
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def test_other_tests_begin_with_what_migrations_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The databases that the other files' tests are given differ in nothing from a migrated one."""
    with StateDirectory.open(tmp_path / "migrated", url="") as migrated:
        pass
    monkeypatch.setattr(schema, "migrate", remade([]))
    with StateDirectory.open(tmp_path / "remade", url="") as other:
        pass
    assert dump(other.path / DATABASE) == dump(migrated.path / DATABASE) != []


def test_the_comparison_can_fail(state: StateDirectory) -> None:
    """A missing column and an undeclared table are found by the comparison above."""
    with state.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE sites DROP COLUMN organ")
        connection.exec_driver_sql("CREATE TABLE stray (x INTEGER)")
    assert {change[0] for change in differences(state)} == {"add_column", "remove_table"}  # type: ignore[index]


def test_downgrade_and_upgrade_lead_back(state: StateDirectory) -> None:
    """Going down leaves nothing but Alembic's table; going up again gives the same, triggers included."""
    before = objects(state)
    with state.engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    left = {name for name in objects(state) if not name.startswith("sqlite_")}
    assert left <= {"alembic_version", "alembic_version_pkc"}
    with state.engine.begin() as connection:
        command.upgrade(alembic_config(connection), "head")
        assert current_revision(connection) == newest_revision()
    assert objects(state) == before
    assert differences(state) == []


def test_an_interrupted_migration_leaves_no_trace(state: StateDirectory) -> None:
    """The schema changes in one transaction: an error after the downgrade undoes all of it."""
    Roster(state).enrol("north", 1, "knee", 10, round=1)
    before = objects(state)
    with pytest.raises(ZeroDivisionError), state.engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
        raise ZeroDivisionError
    assert objects(state) == before
    assert Roster(state).get("north").organ == "knee"


def test_a_newer_database_is_refused_unchanged(state: StateDirectory) -> None:
    """A database of a newer release is refused by name, for writing and for reading."""
    with state.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    url = state.engine.url.render_as_string(hide_password=False)
    state.close()
    for writable in (True, False):
        with pytest.raises(StateError, match=r"schema '9999'.*a newer Reconsent wrote it"):
            StateDirectory.open(state.path, url=url, writable=writable)


def test_a_foreign_database_is_refused_unchanged(state: StateDirectory) -> None:
    """A database with other tables is neither adopted nor altered."""
    url = state.engine.url.render_as_string(hide_password=False)
    with state.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    state.close()
    engine = create_engine(url)
    before = sorted(inspect(engine).get_table_names())
    with pytest.raises(StateError, match="no Reconsent schema"):
        StateDirectory.open(state.path, url=url)
    assert sorted(inspect(engine).get_table_names()) == before
    engine.dispose()


def test_migrations_can_be_written_for_postgresql(capsys: pytest.CaptureFixture[str]) -> None:
    """The migrations render as SQL for PostgreSQL, also where none is at hand."""
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    config = alembic_config()
    script = ScriptDirectory.from_config(config)
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "target_metadata": tables.Base.metadata}
    )
    with Operations.context(context):
        for revision in reversed(list(script.walk_revisions())):
            revision.module.upgrade()
    written = capsys.readouterr().out
    for name in tables.Base.metadata.tables:
        assert f"CREATE TABLE {name} (" in written
    assert written.count("CREATE TRIGGER") == 3 * written.count("RETURNS trigger") >= 9
