"""Somebody who operates a consortium by the command line."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import psutil

from cli.main import main
from deploy.layout import SUPERLINK, Layout
from deploy.local_consortium import LocalConsortium
from reconsent.config import load_consortium
from server.bookkeeping import MAIN
from server.persistence import RoundLog, RoundRecord, StateDirectory
from server.status import status_of

RECONSENT = str(Path(sys.executable).parent / "reconsent")


class Operator:
    """Types commands, and reads what they print.

    The command line runs in this process, which saves starting Python for each; all else are real processes.

    Parameters
    ----------
    state
        The state directory.
    url
        Database of the state, if not a file in it; the environment must say so too.
    """

    def __init__(self, state: Path, url: str = "") -> None:
        self.state = state
        self.url = url
        self.layout = Layout(state)
        self.local = LocalConsortium(state)

    def __call__(self, *arguments: str) -> str:
        """Run a command that must succeed; returns what it printed."""
        printed, complaints = io.StringIO(), io.StringIO()
        with redirect_stdout(printed), redirect_stderr(complaints):
            try:
                main([*arguments, "--state", str(self.state)])
                code: object = 0
            except SystemExit as ended:
                code = ended.code
        assert code in (0, None), f"{arguments}: {printed.getvalue()}\n{complaints.getvalue()}"
        return printed.getvalue()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Run a command in a process of its own, and do not wait for it."""
        command = [RECONSENT, *arguments, "--state", str(self.state)]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Who starts the tests in the background has them ignore what Ctrl-C sends.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def status(self) -> dict[str, Any]:
        """What `reconsent status --json` says."""
        found: dict[str, Any] = json.loads(self("status", "--json"))
        return found

    def site(self, name: str) -> dict[str, Any]:
        """What it says of a site."""
        return next(site for site in self.status()["sites"] if site["name"] == name)

    def wait(self, until: Callable[[dict[str, Any]], bool], seconds: float = 600) -> None:
        """Look at the state until it is as wanted."""
        deadline = time.monotonic() + seconds
        consortium = load_consortium(self.layout.consortium)
        while True:
            began = time.monotonic()
            with StateDirectory.open(self.state, url=self.url, writable=False) as looking:
                found = status_of(looking, consortium)
            if until(found):
                return
            assert time.monotonic() < deadline, json.dumps(found, indent=2)
            # On a busy machine each look takes from what is waited for.
            time.sleep(max(0.5, 4 * (time.monotonic() - began)))

    def records(self) -> list[RoundRecord]:
        """The rounds so far."""
        with StateDirectory.open(self.state, url=self.url, writable=False) as state:
            return list(RoundLog(state).all(MAIN))

    def process(self, name: str) -> psutil.Process:
        """One of the consortium's processes, which must run."""
        pid = next(c.pid for c in self.local.describe() if c.name == name)
        assert pid is not None, name
        return psutil.Process(pid)

    def server_app(self) -> psutil.Process:
        """The process of the ServerApp, which must run."""
        for child in self.process(SUPERLINK).children(recursive=True):
            # Others of its children come and go.
            with suppress(psutil.Error):
                if any("flwr-serverapp" in word for word in child.cmdline()[:3]):
                    return child
        raise AssertionError("no ServerApp runs")
