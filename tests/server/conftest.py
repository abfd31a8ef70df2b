"""The databases that a server's state can be in."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.server.postgres import emptied, running_cluster


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL database that may be wiped: one that is named, or a private server."""
    named = os.environ.get("RECONSENT_TEST_POSTGRES_URL", "")
    if named:
        yield named
        return
    with running_cluster() as url:
        yield url


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """URL of an empty PostgreSQL database."""
    return emptied(postgres_server)
