"""Processes that outlive the terminal: started, recognised and stopped, and no others ever touched."""

from __future__ import annotations

import atexit
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from reconsent.errors import DeployError
from reconsent.files import write_atomically

MARK = "RECONSENT_DEPLOYMENT"
"""Environment variable that every process of a deployment and its children carry: the directory's path."""

# The start time that the kernel reports may move by this much when the clock is set.
_CLOCK_SECONDS = 5.0

_children: list[subprocess.Popen[bytes]] = []


@atexit.register
def _disown() -> None:
    # They shall outlive this process; Python would warn that it forgot to wait for them.
    for child in _children:
        child.returncode = 0


class ProcessRecord(BaseModel):
    """A process that was started, as it is written to ``processes.json``.

    Attributes
    ----------
    name
        What it is called here.
    pid, started
        Its number and start time (seconds since 1970); ``None`` once it was stopped.
    command
        Program and arguments.
    ports
        Purpose → port; kept when it is stopped, for the next time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pid: int | None = None
    started: float | None = None
    command: tuple[str, ...] = ()
    ports: dict[str, int] = {}

    def stopped(self) -> Self:
        """The same without a process."""
        return self.model_copy(update={"pid": None, "started": None})


class ProcessTable(BaseModel):
    """Everything that was started in a deployment; the content of ``processes.json``.

    Attributes
    ----------
    insecure
        Whether it runs without TLS and without authentication of the nodes.
    processes
        By name.
    """

    model_config = ConfigDict(extra="forbid")

    insecure: bool = False
    processes: dict[str, ProcessRecord] = {}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file; an empty table if there is none.

        Raises
        ------
        DeployError
            If it was altered by hand and cannot be read.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except ValidationError as error:
            raise DeployError(
                f"{path} cannot be read: {error.errors()[0]['msg']}.",
                "Remove it: processes are then recognised by their environment alone, and ports found anew.",
            ) from None

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_atomically(path, self.model_dump_json(indent=2).encode() + b"\n")


def start(name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> ProcessRecord:
    """Start a process in a session of its own, with its output in ``log`` and nothing to read.

    The former log is kept as ``NAME.log.1``.

    Raises
    ------
    DeployError
        If the program cannot be started.
    """
    if log.is_file() and log.stat().st_size:
        log.replace(log.with_name(f"{log.name}.1"))
    with log.open("ab") as output:
        try:
            child = subprocess.Popen(  # noqa: S603 - the command is our own
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=log.parent,
                start_new_session=True,
            )
        except OSError as error:
            raise DeployError(
                f"{name} cannot be started: {command[0]}: {error.strerror}.",
                "Install Reconsent with its dependencies again: `pip install reconsent`.",
            ) from None
    # Kept until the end of this process: the child shall outlive it, and is no mistake then.
    _children.append(child)
    with suppress(psutil.NoSuchProcess):
        return ProcessRecord(
            name=name,
            pid=child.pid,
            started=psutil.Process(child.pid).create_time(),
            command=tuple(command),
        )
    return ProcessRecord(name=name, command=tuple(command))


def find(record: ProcessRecord, mark: str) -> psutil.Process | None:
    """The process of a record, if it still runs.

    Its number alone would not do, since numbers are given out again: the start time must agree, and the
    environment must carry our mark.
    """
    if record.pid is None or record.started is None:
        return None
    _reap()
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.started) < _CLOCK_SECONDS
        if same and process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
            return process
    except psutil.Error:
        return None
    return None


def strays(mark: str, known: Iterable[psutil.Process] = ()) -> list[psutil.Process]:
    """Processes with our mark that are neither ``known`` nor descend from them: a killed run's leftovers."""
    _reap()
    families = {process.pid for process in known}
    own = {psutil.Process().pid, *(process.pid for process in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid in families | own or process.environ().get(MARK) != mark:
                continue
            orphan = families.isdisjoint(parent.pid for parent in process.parents())
            if orphan and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def stop(processes: Collection[psutil.Process], *, patience: float = 15.0) -> list[psutil.Process]:
    """Ask processes to end, wait, and end those by force that do not, together with their children.

    Parameters
    ----------
    processes
        Only those that :func:`find` or :func:`strays` returned.
    patience
        Seconds they have.

    Returns
    -------
    Those that had to be ended by force.
    """
    families = {process.pid: process for process in processes}
    for process in processes:
        with suppress(psutil.Error):
            families.update({child.pid: child for child in process.children(recursive=True)})
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(list(processes), timeout=patience)
    # Children follow their parents by themselves, but Flower's take seconds to notice.
    for process in families.values():
        if is_alive(process):
            with suppress(psutil.Error):
                process.terminate()
    _, alive = psutil.wait_procs(list(families.values()), timeout=2.0)
    forced = [process for process in alive if is_alive(process)]
    for process in forced:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(forced, timeout=5.0)
    _reap()
    return forced


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for messages."""
    try:
        content = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in content if line.strip()][-lines:])


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that has ended and only waits to be noticed does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _reap() -> None:
    """Let ended children of this very process go; without it they would look as if they still ran."""
    for child in list(_children):
        if child.poll() is not None:
            _children.remove(child)
