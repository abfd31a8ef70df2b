"""A privacy officer who types commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.main import main


class Officer:
    """Types commands on a copy of the state."""

    def __init__(self, run: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path / "run"
        shutil.copytree(run, self.path)
        self._capsys = capsys

    def __call__(self, *arguments: str, status: int | None = 0, state: bool = True) -> str:
        """Run a command that ends with ``status``, or ``None``: any; returns what it printed."""
        where = ["--state", str(self.path / "state")] if state else []
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *where])
        out, err = self._capsys.readouterr()
        assert status is None or (ended.value.code or 0) == status, out + err
        return str(out + err)
