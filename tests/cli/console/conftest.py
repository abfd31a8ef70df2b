from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.console.console_at_work import Visitor, make_state, serving, start


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A consortium that trained two rounds."""
    path = tmp_path_factory.mktemp("console")
    make_state(path)
    return path


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of it: a directory with ``state`` in it."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def console(place: Path) -> Iterator[str]:
    """The address of a console on the copy."""
    with serving(start(place / "state")) as url:
        yield url


@pytest.fixture
def officer(console: str) -> Visitor:
    """The privacy officer, logged in."""
    visitor = Visitor(console)
    visitor.log_in("officer")
    return visitor
