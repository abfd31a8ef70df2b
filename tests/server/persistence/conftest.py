"""A state directory on SQLite, and on PostgreSQL too where a server is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from server.persistence import StateDirectory

POSTGRES = os.environ.get("RECONSENT_TEST_POSTGRES_URL", "")
"""An empty database that may be wiped, e.g. ``postgresql+psycopg://user@127.0.0.1/test``."""


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the environment it is started in."""
    monkeypatch.delenv("RECONSENT_STATE", raising=False)
    monkeypatch.delenv("RECONSENT_DATABASE_URL", raising=False)


@pytest.fixture(params=["sqlite", *(["postgresql"] if POSTGRES else [])])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateDirectory]:
    """A new, open state directory on each database there is."""
    url = None
    if request.param == "postgresql":
        url = POSTGRES
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        engine.dispose()
    with StateDirectory.open(tmp_path / "state", url=url) as directory:
        yield directory
