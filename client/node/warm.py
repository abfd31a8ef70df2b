"""A process that has everything imported, and becomes a ClientApp by forking when a message comes.

Flower starts a ClientApp process for every message, and importing PyTorch and fastMRI costs each of them
seconds of computing: on a machine with few cores more than the message's own work. So beside a node waits one
process that imported them once. Flower's ``flwr-clientapp`` is found through the node's PATH as a small
program (:mod:`client.node.knock`), which hands its arguments, environment and output over a socket to the
waiting process; that forks, and the child runs the message with the installed app
(:mod:`client.node.own_code`), as a process of its own as before.

It saves time and nothing depends on it: when it does not answer, the program runs the message by itself.
It imports nothing before the first message, ends with its node, and starts afresh when the installed code
changes.
"""

from __future__ import annotations

import gc
import json
import os
import random
import selectors
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from client.node.knock import MESSAGE_LENGTH, SOCKET, TAKEN

LIGHT = ("flwr.supernode.cli", "flwr.supernode.runtime.run_clientapp", "client.app")
"""What every message needs."""

HEAVY = ("client.work", "torch._dynamo", "fastmri.evaluate", "skimage.metrics")
"""What training and evaluation need besides; imported once the first message is served.

PyTorch above all; and what is otherwise imported when an optimiser takes its first step (``torch._dynamo``,
for its decorators alone) or the first image is measured, which takes as long again.
"""

OURS = ("client", "mri", "reconsent", "strategies", "unlearning")

_WATCH_SECONDS = 1.0
_GRACE_SECONDS = 10.0
_SETTLED_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a ClientApp process is started with.

    Attributes
    ----------
    arguments
        After the program's name.
    environment
        Its whole environment.
    files
        Its standard input, output and error.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    files: tuple[int, ...]


class WarmStart:
    """Serves one node; see the module's text.

    Parameters
    ----------
    directory
        Private to the node's user; the socket is made in it.
    node
        Number of the node's process, whose child this is.

    Raises
    ------
    OSError
        If the socket cannot be made.
    """

    def __init__(self, directory: Path, node: int) -> None:
        self._node = node
        self._listener = _listen(directory)
        self._children: dict[int, socket.socket] = {}
        self._imported: set[str] = set()
        self._tried: set[str] = set()
        self._code: dict[Path, int] = {}
        self._seen: dict[Path, int] = {}
        self._since = 0.0
        # What was imported to come here, and where packages are installed, which an upgrade changes.
        self._watch(time.time_ns())
        packages = Path(sysconfig.get_path("purelib"))
        self._code[packages] = _changed_at(packages)

    def serve(self) -> Order | None:
        """Wait for messages; returns in each child its order.

        Returns ``None`` when the node is gone, or the installed code has changed.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(reader, selectors.EVENT_READ)
            while self.has_node():
                for key, _ in selector.select(_WATCH_SECONDS):
                    if key.fileobj is reader:
                        reader.recv(4096)
                    elif (order := self._answer()) is not None:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        signal.signal(signal.SIGINT, signal.default_int_handler)
                        reader.close()
                        writer.close()
                        return order
                self._report_ended()
                self._import_rest()
                if self._is_stale() and self._has_settled() and not self._children:
                    break
        signal.set_wakeup_fd(-1)
        for end in (reader, writer, self._listener):
            end.close()
        return None

    def has_node(self) -> bool:
        """Whether the node is still there."""
        return os.getppid() == self._node

    def _answer(self) -> Order | None:
        """Take one message; the order itself in the child, ``None`` here."""
        connection, _ = self._listener.accept()
        try:
            order = _receive(connection)
        except OSError:
            connection.close()
            return None
        if not self._import(LIGHT) or self._is_stale():
            # Closed without a word: the program then runs the message by itself.
            connection.close()
            _close(order.files)
            return None
        gc.freeze()
        try:
            pid = os.fork()
        except OSError:
            connection.close()
            _close(order.files)
            return None
        if pid:
            self._children[pid] = connection
            _close(order.files)
            return None
        try:
            connection.send(TAKEN)
        except OSError:
            # Who asked is gone, or works the message already.
            os._exit(1)
        self._listener.close()
        for other in self._children.values():
            other.close()
        _become(order)
        _end_with(connection)
        return order

    def _report_ended(self) -> None:
        with suppress(ChildProcessError):
            while self._children:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                connection = self._children.pop(pid, None)
                if connection is None:
                    continue
                with suppress(OSError):
                    connection.send(bytes([os.waitstatus_to_exitcode(status) & 0xFF]))
                connection.close()

    def _import_rest(self) -> None:
        if self._imported and not self._is_stale():
            self._import(HEAVY)

    def _import(self, names: Sequence[str]) -> bool:
        """Import what is not yet; whether all of it could be."""
        wanted = [name for name in names if name not in self._tried]
        for name in wanted:
            began = time.time_ns()
            self._tried.add(name)
            try:
                import_module(name)
                self._imported.add(name)
            except Exception:  # noqa: BLE001, S110 - the message itself will say so, at length
                pass
            finally:
                self._watch(began)
        return self._imported.issuperset(names)

    def _watch(self, began: int) -> None:
        """Note when each file of what was imported was changed; one that was since ``began`` may be new."""
        now = time.time_ns()
        for file in _installed_code():
            changed = _changed_at(file)
            # One from the future, by a clock that was set, is as good as any other.
            self._code.setdefault(file, 0 if began <= changed <= now else changed)

    def _is_stale(self) -> bool:
        """Whether a file of the code that was imported has changed since, or a package came or went."""
        return any(_changed_at(path) != then for path, then in self._code.items())

    def _has_settled(self) -> bool:
        """Whether the code, having changed, has stood still for a while: an upgrade takes its time."""
        now = {path: _changed_at(path) for path in self._code}
        if now != self._seen:
            self._seen, self._since = now, time.monotonic()
        return time.monotonic() - self._since > _SETTLED_SECONDS


def start_warm(directory: Path, environment: Mapping[str, str]) -> None:
    """Start the waiting process as a child of this one, which is to become the node.

    Where processes cannot be forked safely with all that was imported, nothing is started.
    """
    if sys.platform != "linux":
        return
    command = [sys.executable, "-m", "client.node.warm", str(directory), str(os.getpid())]
    # A node can do without.
    with suppress(OSError):
        subprocess.Popen(command, stdin=subprocess.DEVNULL, env=dict(environment))  # noqa: S603 - our own


def main() -> None:
    """Serve; the arguments are the directory, and the number of the node's process."""
    waiting = WarmStart(Path(sys.argv[1]), int(sys.argv[2]))
    order = waiting.serve()
    if order is not None:
        from client.node.own_code import main as run_message

        run_message()
    elif waiting.has_node():
        command = [sys.executable, "-m", "client.node.warm", *sys.argv[1:]]
        os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted


def _listen(directory: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    (directory / SOCKET).unlink(missing_ok=True)
    place = os.open(directory, os.O_RDONLY)
    try:
        # The name of a socket may have some hundred characters: by the directory's number it is short.
        listener.bind(f"/proc/self/fd/{place}/{SOCKET}")
    finally:
        os.close(place)
    (directory / SOCKET).chmod(0o600)
    listener.listen(64)
    return listener


def _receive(connection: socket.socket) -> Order:
    """Read an order; only the same user may give one.

    Raises
    ------
    OSError
        If it is none, or another user's.
    """
    connection.settimeout(_GRACE_SECONDS)
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if struct.unpack("3i", credentials)[1] != os.getuid():
        raise OSError("another user's")
    head, files, _, _ = socket.recv_fds(connection, MESSAGE_LENGTH.size, 3)
    try:
        (length,) = MESSAGE_LENGTH.unpack(head)
        body = b""
        while len(body) < length:
            part = connection.recv(length - len(body))
            if not part:
                raise OSError("cut off")
            body += part
        told = json.loads(body)
        order = Order(tuple(told["arguments"]), dict(told["environment"]), tuple(files))
        if len(order.files) != 3:
            raise ValueError("without its files")
    except (OSError, ValueError, TypeError, KeyError, struct.error) as error:
        _close(files)
        raise OSError(f"no order: {error}") from None
    connection.settimeout(None)
    return order


def _become(order: Order) -> None:
    """Take arguments, environment and output of the program that asked; the directory is the node's."""
    for own, given in enumerate(order.files):
        os.dup2(given, own)
    _close(order.files)
    os.environ.clear()
    os.environ.update(order.environment)
    sys.argv = ["flwr-clientapp", *order.arguments]
    # Children of one process would all draw the same.
    random.seed()
    if "numpy" in sys.modules:
        import numpy as np

        np.random.seed(int.from_bytes(os.urandom(4), "little"))  # noqa: NPY002 - the global generator is meant


def _end_with(connection: socket.socket) -> None:
    """End this process when the program that stands for it in Flower's eyes is gone."""

    def watch() -> None:
        with suppress(OSError):
            connection.recv(1)
        # A signal to the whole group has come here, too: let that one end the work in its own way.
        time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _close(files: Sequence[int]) -> None:
    for file in files:
        with suppress(OSError):
            os.close(file)


def _installed_code() -> Iterator[Path]:
    """Files of our own packages that are imported, this one too."""
    yield Path(__file__)
    for name in list(sys.modules):
        if name.partition(".")[0] in OURS and (file := getattr(sys.modules[name], "__file__", None)):
            yield Path(file)


def _changed_at(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


if __name__ == "__main__":
    main()
