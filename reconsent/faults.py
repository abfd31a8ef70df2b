"""Points at which a test may kill the process, to see that nothing is lost.

``RECONSENT_KILL_AT=NAME`` (or ``NAME:3``, for the third time it is reached) makes the process kill itself
there, as ``kill -9`` would. Unset, a point costs one look at a variable.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "RECONSENT_KILL_AT"

POINTS = (
    "update-kept",
    "round-averaged",
    "round-before-commit",
    "round-committed",
    "withdrawal-restricted",
    "unlearning-begun",
    "unlearning-round-averaged",
    "unlearning-round-committed",
    "unlearning-finished",
    "erasure-before-commit",
    "erasure-committed",
    "keys-destroyed",
    "withdrawal-completed",
)
"""Every point there is, in the order in which a withdrawal reaches them."""

_seen = 0


def reached(point: str) -> None:
    """Die here if this is the point, and the time, that the environment names."""
    global _seen
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    name, _, count = wanted.partition(":")
    if name != point:
        return
    _seen += 1
    if _seen >= int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
