"""A waiting process runs a node's messages, with real processes throughout."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from client.node.knock import SOCKET, ask
from client.node.own_code import write_program
from client.node.warm import OURS

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only"),
    pytest.mark.timeout(240),
]

ROOT = Path(__file__).parents[2]


@contextmanager
def node(directory: Path, root: Path = ROOT) -> Iterator[psutil.Process]:
    """A process that was launched as a node is, and is a mere `sleep`."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "client.node.launch", str(directory), shutil.which("sleep") or "", "600"]
    process = subprocess.Popen(command, env=environment, cwd=root)
    try:
        until((directory / SOCKET).exists)
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def imported_torch(process: psutil.Process) -> bool:
    return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections and never answers, so that a ClientApp waits."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_message_runs_in_a_child(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A child has arguments, output and exit status for who asked; the rest is imported after the first.

    Who connects and says nothing, or nonsense, changes nothing.
    """
    with node(tmp_path / "bin") as sleeping:
        (waiting,) = sleeping.children()
        assert not imported_torch(waiting)
        for nonsense in (b"", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x09{}"):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(f"/proc/self/fd/{os.open(tmp_path / 'bin', os.O_RDONLY)}/{SOCKET}")
                peer.sendall(nonsense)
        assert ask(str(tmp_path / "bin"), ["--help"]) == 0
        assert "--runtime-api-address" in capfd.readouterr().out
        until(lambda: imported_torch(waiting))
        assert ask(str(tmp_path / "bin"), ["--no-such-option"]) == 2
        assert "flwr-clientapp: error" in capfd.readouterr().err
        assert psutil.Process(waiting.pid).num_threads() == 1


def test_without_the_waiting_process(tmp_path: Path) -> None:
    """The program runs a message by itself if nothing waits: none was started, or it was killed."""
    program = write_program(tmp_path / "bin")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert ask(str(tmp_path / "bin"), ["--help"]) is None
    with node(tmp_path / "bin") as sleeping:
        (waiting,) = sleeping.children()
        waiting.kill()
        until(lambda: waiting.status() == psutil.STATUS_ZOMBIE)
        assert ask(str(tmp_path / "bin"), ["--help"]) is None
        shown = subprocess.run(
            [program, "--help"], env=environment, capture_output=True, text=True, check=True
        )
        assert "--runtime-api-address" in shown.stdout


def test_it_ends_with_its_node(tmp_path: Path) -> None:
    """A node that is killed leaves no process waiting."""
    with node(tmp_path / "bin") as sleeping:
        (waiting,) = sleeping.children()
        sleeping.kill()
        until(lambda: not waiting.is_running() or waiting.status() == psutil.STATUS_ZOMBIE)


def test_child_ends_with_who_asked(tmp_path: Path) -> None:
    """When Flower's view of a message's process is killed, so is the child that runs it."""
    with node(tmp_path / "bin") as sleeping, silent_server() as address:
        (waiting,) = sleeping.children()
        program = str(tmp_path / "bin" / "flwr-clientapp")
        asking = subprocess.Popen([program, "--insecure", "--token", "t", "--runtime-api-address", address])
        try:
            until(waiting.children)
            (child,) = waiting.children()
            until(lambda: child.net_connections())
        finally:
            asking.kill()
            asking.wait()
        until(lambda: not waiting.children(), seconds=30)


def test_changed_code_is_imported_anew(tmp_path: Path) -> None:
    """After an upgrade beside a running node, a message is run by the new code."""
    for package in OURS:
        shutil.copytree(ROOT / package, tmp_path / "code" / package)
    with node(tmp_path / "bin", tmp_path / "code") as sleeping:
        assert ask(str(tmp_path / "bin"), ["--help"]) == 0
        file = tmp_path / "code" / "client" / "node" / "own_code.py"
        text = file.read_text().replace("def main() -> None:", "def main() -> None:\n    sys.exit(77)\n", 1)
        file.write_text(text)
        status = None
        with suppress(OSError):
            until(lambda: (tmp_path / "bin" / SOCKET).exists())
        end = time.monotonic() + 120
        while status is None and time.monotonic() < end:
            status = ask(str(tmp_path / "bin"), ["--help"])
            time.sleep(0.1)
        assert status == 77
        assert len(sleeping.children()) == 1
