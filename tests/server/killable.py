"""A server that may be killed: a process of its own that has everything imported, and forks for each run.

``python -m tests.server.killable`` reads lines ``DIRECTORY POINT MILLISECONDS DATABASE`` (``-`` for none),
runs the whole job of :func:`work` in a fork that dies at that point or after that time, and answers with how
it ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconsent.faults import VARIABLE
from server.persistence import RunProgress
from server.service import TARGET, Service, Task
from tests.server.hospitals import consortium, opened

CONFIG = consortium(
    training={"evaluate-every": 2},
    unlearning={
        "rounds-fraction": 1.0,
        "settings": {"alpha": 0.5, "ascent-rounds": 2, "momentum": 0.6, "final-alpha": 0.1},
    },
)
ROOT = Path(__file__).parents[2]


def work(path: Path, url: str = "") -> None:
    """Two rounds, a withdrawal, its unlearning, one more round; whatever of it is not done yet."""
    with opened(path, CONFIG, simulated=False, url=url) as run:
        service, progress = Service(run.coordinator), RunProgress(run.coordinator.state)
        if not run.coordinator.withdrawals.all():
            service.carry_out(Task("resume") if progress.get(TARGET) else Task("train", 2))
            run.coordinator.withdrawals.file(["delta"], reason="asked", requested_by="officer")
        service.carry_out(Task("resume") if progress.get(TARGET) > 2 else Task("train", 1))


class Killable:
    """The way to that process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, path: Path, point: str = "-", milliseconds: float | None = None, url: str = "") -> int:
        """Do the job; returns the exit code, or minus the signal that ended it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path} {point} {milliseconds or '-'} {url or '-'}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def started() -> Iterator[Killable]:
    """Start the process, and stop it."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.server.killable"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield Killable(process)
        assert process.stdin is not None
        process.stdin.close()


def _fork(path: Path, point: str, milliseconds: str, url: str) -> int:
    child = os.fork()
    if child == 0:
        os.environ.pop(VARIABLE, None)
        if point != "-":
            os.environ[VARIABLE] = point
        code = 1
        try:
            work(path, "" if url == "-" else url)
            code = 0
        finally:
            os._exit(code)
    if milliseconds != "-":
        time.sleep(float(milliseconds) / 1000)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        told, at, after, database = line.split()
        sys.stdout.write(f"{_fork(Path(told), at, after, database)}\n")
        sys.stdout.flush()
