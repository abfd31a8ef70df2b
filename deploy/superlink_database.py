"""A SuperLink's database that is waited for where another connection writes to it.

Flower keeps messages, models among them, in one SQLite file, in which one connection writes at a time. Each
waits 5 s for the others (``SQLITE_PRAGMAS`` in ``flwr.supercore.constant``, set at every connection, whatever
the database's URL says), and then a request fails with *database is locked*. On a busy machine with a slow
disk and large models that is too short. SQLAlchemy lets a URL name a plugin, which sees every connection as
it is handed out: this one has it wait longer. Nothing of Flower is changed.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import URL, CreateEnginePlugin

PLUGIN = "reconsent_patience"
"""Name of the entry point in the group ``sqlalchemy.plugins``."""

PATIENCE_SECONDS = 60

_NEEDS_QUOTES = frozenset("?#%\\")
"""In a path, which a URL cannot tell from its own."""


class Patience(CreateEnginePlugin):
    """Has every connection of an SQLite engine wait :data:`PATIENCE_SECONDS` for the others' transactions."""

    def update_url(self, url: URL) -> URL:
        """Take nothing out of the URL: the plugin has no arguments."""
        return url

    def engine_created(self, engine: Engine) -> None:
        """Listen to the engine's connections; Flower's own settings are made before they are handed out."""
        event.listen(engine, "checkout", _be_patient)


def _be_patient(connection: Any, record: Any, _proxy: Any) -> None:
    if PLUGIN not in record.info:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {1000 * PATIENCE_SECONDS}")
        cursor.close()
        record.info[PLUGIN] = True


def patient_database(path: Path) -> str:
    """What to name to ``flower-superlink --database`` for the file ``path``.

    A path that is no part of a URL is named as it is, and so is any where this installation does not
    declare the plugin; then Flower's 5 s hold.
    """
    declared = any(
        plugin.value.startswith(f"{__name__}:") for plugin in entry_points(group="sqlalchemy.plugins")
    )
    if not declared or _NEEDS_QUOTES & set(str(path)):
        return str(path)
    return f"sqlite:///{path}?plugin={PLUGIN}"
