"""``flwr run .``: the app starts from its bundle, on a SuperLink that Flower starts for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconsent.config import dump_consortium, load_consortium
from server.bookkeeping import MAIN, ORACLE, Bookkeeping
from server.persistence import StateDirectory, Withdrawals

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
NO_START = "Failed to start local SuperLink within"


class Flower:
    """Flower's command line with a home of its own, so with a SuperLink of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        scripts = Path(sys.executable).parent
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("RECONSENT_", "FLWR_"))
        }
        self.environment = {
            **kept,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(home),
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, consortium: str, state: Path, nodes: int) -> str:
        """What ``flwr run . --stream`` prints."""
        command = [
            *("flwr", "run", str(ROOT), "--stream"),
            *("--run-config", f'consortium="{consortium}" state="{state}"'),
            "--federation-config",
            f"num-supernodes={nodes} client-resources-num-cpus=1 init-args-num-cpus=2",
        ]
        for _ in range(5):
            done = subprocess.run(
                command, env=self.environment, cwd=self.home, capture_output=True, text=True, check=False
            )
            printed = done.stdout + done.stderr
            # Flower gives its SuperLink 15 s to start, which a busy machine may not keep.
            if NO_START not in " ".join(printed.split()):
                return printed
        raise AssertionError(printed)

    def stop(self) -> None:
        """Stop the SuperLink, which Flower leaves running, and what it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self._processes():
                try:
                    os.kill(process, number)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + 10
            while self._processes() and time.monotonic() < deadline:
                time.sleep(0.1)
        assert self._processes() == []

    def _processes(self) -> list[int]:
        """Processes that have our home in their environment: no others."""
        mark = f"FLWR_HOME={self.home}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if mark in (entry / "environ").read_bytes() + b"\0":
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    """One SuperLink for the tests of this file."""
    started = Flower(tmp_path_factory.mktemp("flower-home"))
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The preset ``tiny`` with two rounds and no oracle."""
    config = load_consortium("tiny")
    changed = config.model_copy(
        update={
            "training": config.training.model_copy(update={"rounds": 2, "local_steps": 1}),
            "assessment": config.assessment.model_copy(update={"oracle": False}),
        }
    )
    path = tmp_path / "small.toml"
    path.write_text(dump_consortium(changed))
    return path


def test_app_runs_from_its_bundle(flower: Flower, small: Path, tmp_path: Path) -> None:
    """The bundle has all that server and sites need; the run trains, withdraws, and keeps its state."""
    state = tmp_path / "state"
    printed = flower.run(str(small), state, 3)
    with StateDirectory.open(state, url="", writable=False) as opened:
        books = Bookkeeping(opened)
        assert [r.kind for r in books.log.all(MAIN)] == ["train", "train", "retain"], printed
        assert books.log.count(ORACLE) == 0
        (record,) = Withdrawals(opened).all()
        assert record.state == "completed"
        assert record.simulated
    assert sorted(p.name for p in (state / "phantoms").glob("[a-z]*")) == ["abdomen", "brain", "knee"]
    assert not list(flower.home.rglob("*.h5")), "server and sites agree on where the state directory is"
