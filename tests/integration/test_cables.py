"""Both kinds of cable: what passes, what does not while they are cut, and that nothing is left of them."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.ports import LOCAL, find_ports
from tests.integration.namespace_cable import CableNotAllowedError, NamespaceCable
from tests.integration.tcp_proxy import TcpProxy

ASK = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); print(s.recv(9))"


@pytest.fixture
def greeting() -> Iterator[int]:
    """The port of a server that says hello to everybody."""
    with socket.create_server((LOCAL, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                # Who only looks whether anybody listens may be gone again.
                with connection, suppress(OSError):
                    connection.sendall(b"hello")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cable(greeting: int, unused_port: int) -> Iterator[NamespaceCable]:
    """A namespace from which the server is reached; skips where there can be none."""
    try:
        made = NamespaceCable(greeting, unused_port)
    except CableNotAllowedError as error:
        pytest.skip(str(error))
    try:
        yield made
    finally:
        made.close()
        assert not Path(f"/run/netns/{made.name}").exists()


@pytest.fixture
def unused_port() -> int:
    """A port that was free a moment ago."""
    (port,) = find_ports([None])
    return port


def test_nothing_passes_a_namespace_whose_cable_is_cut(
    cable: NamespaceCable, greeting: int, unused_port: int
) -> None:
    """The server is reached by its own address, and not while the cable is cut; what is inside, always."""

    def ask() -> subprocess.CompletedProcess[str]:
        command = cable.inside((sys.executable, "-c", ASK, LOCAL, str(greeting)))
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert ask().stdout == "b'hello'\n", ask().stderr
    passed = cable.passed
    assert passed > 100
    cable.cut()
    assert "TimeoutError" in ask().stderr
    listening = "import socket; s = socket.create_server(('127.0.0.1', {})); s.accept()[0].sendall(b'inside')"
    inside = cable.inside((sys.executable, "-c", listening.format(unused_port)))
    with subprocess.Popen(inside) as server:
        assert answer(unused_port) == b"inside"
        assert server.wait(20) == 0
    cable.heal()
    assert ask().stdout == "b'hello'\n"
    assert cable.passed > passed


def answer(port: int) -> bytes:
    """What is said to whoever connects, as soon as anything is."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.create_connection((LOCAL, port), 20) as connection:
            if said := connection.recv(9):
                return said
        time.sleep(0.05)
    raise AssertionError("nobody answers")


def test_what_is_sent_through_a_cut_proxy_waits(greeting: int) -> None:
    """It arrives when the proxy is whole again; and none answers any more when it is taken away."""
    proxy = TcpProxy(LOCAL, greeting)
    host, _, port = proxy.address.partition(":")
    proxy.cut()
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(9)
        proxy.heal()
        connection.settimeout(20)
        assert connection.recv(9) == b"hello"
    proxy.close()
    with pytest.raises(OSError):
        socket.create_connection((host, int(port)), 5).recv(9)
