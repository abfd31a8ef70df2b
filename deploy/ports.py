"""Free ports, found and kept."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable
from contextlib import ExitStack

from reconsent.errors import DeployError

LOCAL = "127.0.0.1"


def find_ports(
    preferred: Iterable[int | None], *, taken: Collection[int] = (), host: str = LOCAL
) -> list[int]:
    """As many distinct free ports as there are entries in ``preferred``.

    Nothing keeps another program from taking one before it is used; whoever is given it must be ready to
    fail at that.

    Parameters
    ----------
    preferred
        For each port, the one to take if it is free; ``None`` for any.
    taken
        Ports that are spoken for although nobody listens there yet.
    host
        Address to listen on.

    Raises
    ------
    DeployError
        If there is no free port left.
    """
    wanted = list(preferred)
    found: list[int | None] = [None] * len(wanted)
    # All sockets stay open until every port is found, so that none is given out twice.
    with ExitStack() as sockets:
        for index, port in enumerate(wanted):
            if port is not None and port not in taken:
                found[index] = _bind(sockets, host, port)
        for index, port in enumerate(found):
            while port is None or port in taken:
                port = _bind(sockets, host, 0)
                if port is None:
                    raise DeployError(f"There is no free port on {host}.", "Stop other programs first.")
            found[index] = port
    return [port for port in found if port is not None]


def is_free(port: int, *, host: str = LOCAL) -> bool:
    """Whether nobody listens on ``port``."""
    with ExitStack() as sockets:
        return _bind(sockets, host, port) is not None


def _bind(sockets: ExitStack, host: str, port: int) -> int | None:
    candidate = sockets.enter_context(socket.socket())
    # As servers do: connections of a server that has just ended do not count.
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        candidate.bind((host, port))
    except OSError:
        return None
    return int(candidate.getsockname()[1])
