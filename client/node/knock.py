"""The program that stands where Flower looks for ``flwr-clientapp``: it asks the waiting process for a child.

Run as a file by an interpreter without site packages, so that it takes next to no time; it imports nothing
but the standard library, and is imported by nothing that must not be. See :mod:`client.node.warm`.

    knock.py DIRECTORY ARGUMENTS...
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys

SOCKET = "warm.sock"
MESSAGE_LENGTH = struct.Struct("!I")

TAKEN = b"T"
"""Said before the exit status: a child runs the message, which must not be run again."""

COLD = "from client.node.own_code import main; main()"
"""What runs the message where nothing answers."""


def ask(directory: str, arguments: list[str]) -> int | None:
    """Have the message run by a child of the waiting process.

    Returns its exit status, or ``None`` if there is no such process or it did not take the message.
    """
    body = json.dumps({"arguments": arguments, "environment": dict(os.environ)}).encode()
    try:
        place = os.open(directory, os.O_RDONLY)
        connection = socket.socket(socket.AF_UNIX)
        # The name of a socket may have some hundred characters: by the directory's number it is short.
        connection.connect(f"/proc/self/fd/{place}/{SOCKET}")
        socket.send_fds(connection, [MESSAGE_LENGTH.pack(len(body))], [0, 1, 2])
        connection.sendall(body)
        if connection.recv(1) != TAKEN:
            return None
    except OSError:
        return None
    # From here on the child is told by its own signal, not by the one that reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        status = connection.recv(1)
    except OSError:
        status = b""
    return status[0] if status else 1


def main() -> None:
    """Ask, and run the message by this process where nothing answers."""
    directory, arguments = sys.argv[1], sys.argv[2:]
    status = ask(directory, arguments)
    if status is None:
        os.execv(sys.executable, [sys.executable, "-c", COLD, *arguments])  # noqa: S606 - no shell is wanted
    sys.exit(status)


if __name__ == "__main__":
    main()
