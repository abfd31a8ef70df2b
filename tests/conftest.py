"""In which order the files of tests are run, and what their empty databases are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from sqlalchemy import Connection, create_engine, inspect, text

from server.persistence import schema

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

MIGRATE = schema.migrate
"""The real one, for the tests that are about it."""

LONGEST = (
    "test_life_of_a_consortium.py",
    "test_scenarios.py",
    "test_installed_wheel.py",
    "test_metrics.py",
    "test_simulation.py",
    "test_site_own_code.py",
    "test_local_consortium.py",
)
"""Files that take minutes. Begun last, one process would be busy with them long after the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all others as they come."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(Path(item.path).name, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def _migrated_once() -> Iterator[None]:
    """Alembic works on one empty SQLite database a process; the statements that it wrote make the others.

    A thousand tests begin with an empty database, and all migrations were a tenth of their work.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "migrate", remade([]))
        yield


def remade(statements: list[str]) -> Callable[[Connection], None]:
    """A migration that fills an empty database by ``statements``; the first one that is filled gives them."""

    def migrate(connection: Connection) -> None:
        if connection.dialect.name != "sqlite" or inspect(connection).get_table_names():
            MIGRATE(connection)
            return
        if not statements:
            statements.extend(what_migrations_make())
        for statement in statements:
            connection.exec_driver_sql(statement)
        revision = {"version_num": schema.newest_revision()}
        connection.execute(text("INSERT INTO alembic_version VALUES (:version_num)"), revision)

    return migrate


def what_migrations_make() -> list[str]:
    """The statements that make a SQLite database which all migrations were carried out on."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        MIGRATE(connection)
        found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master ORDER BY rowid").all()
    engine.dispose()
    return [sql for name, sql in found if sql is not None and not name.startswith("sqlite_")]
