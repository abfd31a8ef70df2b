"""A cable between two programs that can be cut."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class TcpProxy:
    """Passes bytes on between whoever connects and one address; while it is cut, nothing passes.

    Parameters
    ----------
    host, port
        Where to.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._listener = socket.create_server((host, 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._whole = True
        self.passed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection; new ones end at once."""
        with self._lock:
            self._whole = False
            broken, self._open = self._open, set()
        for each in broken:
            _end(each)

    def heal(self) -> None:
        """Let new connections through."""
        with self._lock:
            self._whole = True

    def close(self) -> None:
        """Cut it for good."""
        self.cut()
        _end(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                whole = self._whole
                if whole:
                    self._open |= {near, far}
            if not whole:
                near.close()
                far.close()
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
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
