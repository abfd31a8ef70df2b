"""Processes are recognised and stopped, and only our own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deploy import processes
from deploy.processes import MARK, ProcessRecord, ProcessTable
from reconsent.errors import DeployError

SLEEP = "import time; print('ready', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); "
STUBBORN += "time.sleep(60)"
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); "
PARENT += "print('parent', flush=True); time.sleep(60)"

Starter = Callable[..., ProcessRecord]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@pytest.fixture
def mark(tmp_path: Path) -> str:
    return str(tmp_path / "deployment")


@pytest.fixture
def start(tmp_path: Path, mark: str) -> Iterator[Starter]:
    """Start Python with a line of code and wait until it says something; everything is ended afterwards."""

    def begin(code: str, *arguments: str, name: str = "one", words: int = 1) -> ProcessRecord:
        environment = {**os.environ, MARK: mark}
        log = tmp_path / f"{name}.log"
        record = processes.start(name, [sys.executable, "-c", code, *arguments], environment, log)
        until(lambda: len(log.read_text().split()) >= words)
        return record

    yield begin
    processes.stop(processes.strays(mark), patience=0.2)
    assert processes.strays(mark) == []


def test_started_process_is_found_again(start: Starter, mark: str) -> None:
    """Number, start time and mark lead back to the process; it leads a session of its own."""
    record = start(SLEEP)
    found = processes.find(record, mark)
    assert found is not None and found.pid == record.pid
    assert os.getsid(found.pid) == found.pid != os.getsid(0)


def test_recycled_number_is_not_ours(start: Starter, mark: str) -> None:
    """The same number with another start time is another process."""
    record = start(SLEEP)
    assert record.started is not None
    later = record.model_copy(update={"started": record.started - 60})
    assert processes.find(later, mark) is None


def test_unmarked_process_is_never_ours(start: Starter, mark: str) -> None:
    """Number and start time of somebody else's process are not enough: the mark must be there, too."""
    with subprocess.Popen([sys.executable, "-c", SLEEP], stdout=subprocess.DEVNULL) as other:
        try:
            started = psutil.Process(other.pid).create_time()
            record = ProcessRecord(name="other", pid=other.pid, started=started)
            assert processes.find(record, mark) is None
            ours = start(SLEEP)
            assert [process.pid for process in processes.strays(mark)] == [ours.pid]
            processes.stop(processes.strays(mark))
            assert other.poll() is None
        finally:
            other.kill()


def test_process_of_another_deployment_is_not_ours(start: Starter, mark: str) -> None:
    """Two state directories do not see each other's processes."""
    record = start(SLEEP)
    assert processes.find(record, f"{mark}-2") is None
    assert processes.strays(f"{mark}-2") == []


def test_ended_process_is_not_found(start: Starter, mark: str) -> None:
    """One that was killed is gone at once, though its parent has not waited for it."""
    record = start(SLEEP)
    assert record.pid is not None
    os.kill(record.pid, signal.SIGKILL)
    until(lambda: processes.find(record, mark) is None)


def test_stop_is_polite_first(start: Starter, mark: str) -> None:
    """A process that heeds SIGTERM is not killed."""
    record = start(SLEEP)
    found = processes.find(record, mark)
    assert found is not None
    assert processes.stop([found]) == []
    assert not processes.is_alive(found)


def test_stop_ends_the_stubborn_and_their_children(start: Starter, mark: str) -> None:
    """Who ignores SIGTERM is killed when time is up, and so are children that their parent leaves behind."""
    parent = start(PARENT, STUBBORN, words=2)
    found = processes.find(parent, mark)
    assert found is not None
    (child,) = found.children()
    forced = processes.stop([found], patience=0.5)
    assert child.pid in {process.pid for process in forced}
    assert not processes.is_alive(found) and not processes.is_alive(child)


def test_orphans_are_strays_and_families_are_not(start: Starter, mark: str) -> None:
    """Children of a known process are left alone; when it is killed they become leftovers, and are found."""
    parent = start(PARENT, SLEEP, words=2)
    found = processes.find(parent, mark)
    assert found is not None
    (child,) = found.children()
    assert processes.strays(mark, [found]) == []
    found.kill()
    until(lambda: processes.find(parent, mark) is None)
    assert [process.pid for process in processes.strays(mark)] == [child.pid]


def test_log_is_rotated_once(start: Starter, tmp_path: Path) -> None:
    """The former log is kept as .1, and the one before that is dropped."""
    for text in ("first", "second", "third"):
        start(f"print({text!r}, flush=True)")
        until(lambda text=text: text in (tmp_path / "one.log").read_text())  # type: ignore[misc]
    assert (tmp_path / "one.log").read_text().strip() == "third"
    assert (tmp_path / "one.log.1").read_text().strip() == "second"
    assert sorted(path.name for path in tmp_path.glob("one.log*")) == ["one.log", "one.log.1"]


def test_missing_program_is_explained(tmp_path: Path) -> None:
    """A program that is not there is an error with its path."""
    with pytest.raises(DeployError, match="/no/such/program"):
        processes.start("one", ["/no/such/program"], {}, tmp_path / "one.log")


def test_table_survives_writing_and_reading(tmp_path: Path) -> None:
    """What was written is read back; no file is an empty table; nonsense is an error that says what to do."""
    path = tmp_path / "processes.json"
    assert ProcessTable.load(path) == ProcessTable()
    record = ProcessRecord(name="one", pid=7, started=1.5, command=("a", "b"), ports={"api": 80})
    table = ProcessTable(insecure=True, processes={"one": record})
    table.save(path)
    assert ProcessTable.load(path) == table
    path.write_text('{"processes": 3}')
    with pytest.raises(DeployError, match="Remove it"):
        ProcessTable.load(path)


def test_tail_has_the_last_lines(tmp_path: Path) -> None:
    """The end of a log without its empty lines; nothing for a missing one."""
    (tmp_path / "log").write_text("".join(f"line {n}\n\n" for n in range(9)))
    assert processes.tail(tmp_path / "log", 2) == "line 7\nline 8"
    assert processes.tail(tmp_path / "missing") == ""
