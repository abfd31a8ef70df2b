"""``python -m deploy.probe HOST:PORT``: the exit status says whether a SuperLink or SuperNode serves.

For container runtimes, whose health checks are commands. Flower's health servers say that the process is up,
not that it has work, or that the other side is reached.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from deploy.health import status


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 if the address serves, 1 if not, 2 if it was called wrongly.

    Parameters
    ----------
    arguments
        Host and port, as one.
    """
    if len(arguments) != 1 or not arguments[0].rpartition(":")[2].isdecimal():
        sys.stderr.write("usage: python -m deploy.probe HOST:PORT\n")
        return 2
    found = status(arguments[0], timeout=10.0)
    sys.stdout.write(f"{arguments[0]} {found}\n")
    return 0 if found == "serving" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
