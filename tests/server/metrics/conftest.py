"""What the tests of the server's metrics share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.metrics.collector import StateCollector


@pytest.fixture
def collector(state: Path) -> Iterator[StateCollector]:
    """Of the module's own ``state``."""
    found = StateCollector(state)
    yield found
    found.close()
