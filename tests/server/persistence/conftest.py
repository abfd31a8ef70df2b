"""A state directory on SQLite, and on PostgreSQL where that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.persistence import StateDirectory


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the environment it is started in."""
    monkeypatch.delenv("RECONSENT_STATE", raising=False)
    monkeypatch.delenv("RECONSENT_DATABASE_URL", raising=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateDirectory]:
    """A new, open state directory on each database there is."""
    url = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    with StateDirectory.open(tmp_path / "state", url=url) as directory:
        yield directory
