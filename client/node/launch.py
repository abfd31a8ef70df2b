"""Become a site's SuperNode, with the installed app ready beside it.

    python -m client.node.launch DIRECTORY PROGRAM ARGUMENTS...

``DIRECTORY`` is first in the node's PATH.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from client.node.own_code import write_program
from client.node.warm import start_warm


def launch(arguments: Sequence[str], environment: Mapping[str, str], directory: Path | None) -> None:
    """Replace this process by the SuperNode; signals and exit status are its own then.

    Parameters
    ----------
    arguments
        Its program and arguments.
    environment
        Its whole environment.
    directory
        Where the program goes that runs the installed app; ``None`` for the app that the server sends.

    Raises
    ------
    ConfigError
        If the directory cannot be written.
    """
    if directory is not None:
        write_program(directory)
        start_warm(directory, environment)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(arguments[0], list(arguments), dict(environment))  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    launch(sys.argv[2:], os.environ, Path(sys.argv[1]))
