"""Somebody who operates a consortium by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.layout import Layout
from reconsent.config import load_consortium
from server.persistence import StateDirectory
from server.status import status_of


class Operator:
    """Types commands, and reads what they print."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def __call__(self, *arguments: str) -> str:
        """Run a command that must succeed; returns what it printed."""
        command = [str(Path(sys.executable).parent / "reconsent"), *arguments, "--state", str(self.state)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What `reconsent status --json` says."""
        found: dict[str, Any] = json.loads(self("status", "--json"))
        return found

    def wait(self, until: Callable[[dict[str, Any]], bool], seconds: float = 400) -> dict[str, Any]:
        """Look at the state until it is as wanted; then ask for the status."""
        deadline = time.monotonic() + seconds
        consortium = load_consortium(Layout(self.state).consortium)
        while True:
            with StateDirectory.open(self.state, url="", writable=False) as looking:
                found = status_of(looking, consortium)
            if until(found):
                return self.status()
            assert time.monotonic() < deadline, json.dumps(found, indent=2)
            time.sleep(1)
