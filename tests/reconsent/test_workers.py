"""Worker processes: forked from one process for all pools, each with the environment of its own time."""

from __future__ import annotations

import os

import pytest

from reconsent import workers


def test_pools_share_the_imports_and_not_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pools are forked from the same other process; a variable is what it was when each was made."""
    monkeypatch.setattr(workers, "_LAST", ())
    parents, values = set(), []
    for value in ("first", "second"):
        monkeypatch.setenv("RECONSENT_STATE", value)
        with workers.worker_pool(1, "tests.linear_app") as pool:
            values.append(pool.submit(os.getenv, "RECONSENT_STATE").result(60))
            parents.add(pool.submit(os.getppid).result(60))
        monkeypatch.delenv("RECONSENT_STATE")
    with workers.worker_pool(1, "tests.linear_app") as pool:
        values.append(pool.submit(os.getenv, "RECONSENT_STATE").result(60))
    assert values == ["first", "second", None]
    assert len(parents) == 1
    assert os.getpid() not in parents
