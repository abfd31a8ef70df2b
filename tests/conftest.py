"""In which order the files of tests are run."""

from __future__ import annotations

from pathlib import Path

import pytest

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
