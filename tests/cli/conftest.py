"""What tests of several commands begin from: it takes seconds to come to."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconsent.config import dump_consortium
from server.persistence import Withdrawals
from tests.cli.officer_at_work import Officer
from tests.server.hospitals import consortium, opened


@pytest.fixture(scope="session")
def requested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A consortium that trained, from which a site has asked to withdraw."""
    path = tmp_path_factory.mktemp("officer")
    config = consortium()
    (path / "consortium.toml").write_text(dump_consortium(config))
    with opened(path, config) as run:
        run.coordinator.run()
        Withdrawals(run.coordinator.state).file(["delta"], reason="asked", requested_by="dpo", restrict=True)
    return path


@pytest.fixture
def officer(requested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Officer:
    """An officer at work."""
    return Officer(requested, tmp_path, capsys)
