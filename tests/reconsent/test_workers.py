"""Worker processes: forked from one process for all pools, each with the environment of its own time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from reconsent import workers

KILLED = """
import os, pathlib, signal, sys, time
from reconsent import workers
workers._LAST = ()
with workers.worker_pool(2, "reconsent.workers") as pool:
    print(pool.submit(os.getpid).result(60), pool.submit(os.getppid).result(60), flush=True)
    if sys.argv[1] == "busy":
        for number in "12":  # each at its own worker
            work = f"import pathlib, time; pathlib.Path('at-work-{number}').touch(); time.sleep(600)"
            pool.submit(exec, work)
        while len(list(pathlib.Path().glob("at-work-*"))) < 2:
            time.sleep(0.05)
        print(*pool._processes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


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


@pytest.mark.parametrize("doing", ["busy", "idle"])
def test_workers_end_with_the_process_that_wanted_them(doing: str, tmp_path: Path) -> None:
    """However it ends: its workers, and the process they are forked from, are not left behind."""
    # Into a file: a pipe would end with the last of them.
    with (tmp_path / "pids").open("w") as told:
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, doing],
            stdout=told,
            timeout=100,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
    assert killed.returncode == -signal.SIGKILL
    pids = set(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == (3 if doing == "busy" else 2)
    until = time.monotonic() + 20
    while (left := {pid for pid in pids if runs(pid)}) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == set()


def runs(pid: int) -> bool:
    """Whether it is there; one that waits only for somebody to ask what became of it is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
