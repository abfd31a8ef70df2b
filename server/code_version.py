"""Which code this is, beside the digest of its files: the commit of a checkout."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

NOT_RECORDED = "not recorded"
"""Where something about a run is not known, and was not known at its time."""
_SECONDS = 10.0


def git_commit(root: Path | None = None) -> str:
    """The commit that the code runs from, with ``-dirty`` if tracked files differ from it.

    :data:`NOT_RECORDED` where the code is no checkout (an installed package, the bundle that Flower ships),
    or git is not there.

    Parameters
    ----------
    root
        Of the checkout (default: of this code).
    """
    root = root or Path(__file__).resolve().parent.parent
    git = shutil.which("git")
    # Only if the checkout is of this code: packages may be installed somewhere below another one.
    if git is None or not (root / ".git").exists():
        return NOT_RECORDED
    command = [git, "--no-optional-locks", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(  # noqa: S603 - no shell, our own arguments
            [*command, "--exclude=*"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return NOT_RECORDED
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else NOT_RECORDED
