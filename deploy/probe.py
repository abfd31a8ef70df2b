"""``python -m deploy.probe HOST:PORT``: the exit status says whether a SuperLink or SuperNode serves.

With ``http://HOST:PORT/PATH`` or ``https://…`` it says whether an exporter or a console answers there.

For container runtimes, whose health checks are commands. Flower's health servers say that the process is up,
not that it has work, or that the other side is reached.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import httpx

from deploy.health import status


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 if the address serves, 1 if not, 2 if it was called wrongly.

    Parameters
    ----------
    arguments
        Host and port as one, or a URL.
    """
    if len(arguments) == 1 and arguments[0].startswith(("http://", "https://")):
        found = _answer(arguments[0])
        sys.stdout.write(f"{arguments[0]} {found}\n")
        return 0 if found == "200" else 1
    if len(arguments) != 1 or not arguments[0].rpartition(":")[2].isdecimal():
        sys.stderr.write("usage: python -m deploy.probe HOST:PORT | http[s]://HOST:PORT/PATH\n")
        return 2
    found = status(arguments[0], timeout=10.0)
    sys.stdout.write(f"{arguments[0]} {found}\n")
    return 0 if found == "serving" else 1


def _answer(url: str) -> str:
    try:
        # A proxy of the environment must not come between a container and itself. The certificate is for the
        # name that others use, and this says nothing but that somebody answers.
        return str(httpx.get(url, timeout=10.0, trust_env=False, verify=False).status_code)  # noqa: S501
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"no answer ({type(error).__name__})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
