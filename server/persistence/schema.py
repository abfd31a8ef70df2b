"""Brings a state database to the schema this release needs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from reconsent.errors import StateError

MIGRATIONS = Path(__file__).parent / "migrations"


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration: the migrations beside this file, run on ``connection``.

    There is no ``alembic.ini``: the application bundle that Flower ships carries Python files only.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@cache
def newest_revision() -> str:
    """The revision this release works with."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if head is None:
        raise StateError(f"There are no migrations in {MIGRATIONS}.", "Reinstall Reconsent.")
    return head


def _revisions() -> set[str]:
    script = ScriptDirectory.from_config(alembic_config())
    return {known.revision for known in script.walk_revisions()}


def current_revision(connection: Connection) -> str | None:
    """The revision of the database; ``None`` if it has none (empty, or not ours)."""
    return MigrationContext.configure(connection).get_current_revision()


def check_schema(connection: Connection, *, where: str, upgrade: bool) -> None:
    """Make sure that the database has this release's schema.

    Parameters
    ----------
    connection
        In a transaction: an upgrade that is interrupted leaves the database as it was.
    where
        The database, for messages.
    upgrade
        Whether to create or upgrade the schema; otherwise it must be there already.

    Raises
    ------
    StateError
        If the database is of a newer release, is no state database, or needs an upgrade that was not asked
        for.
    """
    revision, newest = current_revision(connection), newest_revision()
    if revision == newest:
        return
    if revision is None:
        tables = inspect(connection).get_table_names()
        if [name for name in tables if name != "alembic_version"]:
            raise StateError(
                f"{where} holds tables ({', '.join(sorted(tables)[:3])}, …) but no Reconsent schema.",
                "Choose another state directory or database.",
            )
        if not upgrade:
            raise StateError(f"{where} is empty: no server has used it yet.", "Start the server there first.")
    elif revision not in _revisions():
        raise StateError(
            f"{where} has schema '{revision}', which this release (schema '{newest}') does not know: "
            "a newer Reconsent wrote it.",
            "Install that newer release, or restore the backup made before the upgrade. Nothing was changed.",
        )
    elif not upgrade:
        raise StateError(
            f"{where} has the old schema '{revision}'; this release needs '{newest}'.",
            "Start the server once: it upgrades the database.",
        )
    migrate(connection)


def migrate(connection: Connection) -> None:
    """Carry out the migrations that the database has not seen."""
    command.upgrade(alembic_config(connection), "head")
