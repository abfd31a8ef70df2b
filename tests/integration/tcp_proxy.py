"""A cable between two programs that can be cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class TcpProxy:
    """Passes bytes on between whoever connects and one address.

    While it is cut nothing passes, and nobody is told: as with a cable that is pulled, connections stay open
    and requests wait. Plugged in again, what was sent meanwhile arrives.

    Parameters
    ----------
    host, port
        Where to.
    own
        The port to listen at; 0: any that is free.
    connect
        Makes a connection to an address.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        own: int = 0,
        connect: Callable[[tuple[str, int]], socket.socket] = socket.create_connection,
    ) -> None:
        self._target, self._connect = (host, port), connect
        self._listener = socket.create_server((host, own))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._whole = threading.Event()
        self._whole.set()
        self.passed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing pass any more."""
        self._whole.clear()

    def heal(self) -> None:
        """Let everything pass again."""
        self._whole.set()

    def close(self) -> None:
        """Take it away: every connection breaks."""
        _end(self._listener)
        with self._lock:
            broken, self._open = self._open, set()
        for each in broken:
            _end(each)
        self._whole.set()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = self._connect(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                self._whole.wait()
                sink.sendall(content)
                self.passed += len(content)
        for each in (source, sink):
            _end(each)
            with self._lock:
                self._open.discard(each)


def _end(connection: socket.socket) -> None:
    # Closing alone would not wake a thread that waits in it.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
