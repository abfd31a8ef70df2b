"""A node runs the installed app, whatever it is sent."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from client.node.own_code import RUNNER, use_installed_app
from reconsent.errors import ConfigError


def test_received_code_is_not_touched() -> None:
    """In Flower's runner, unpacking does nothing, and loading gives the installed app."""
    program = (
        "import sys\n"
        "from client.node.own_code import RUNNER, use_installed_app\n"
        "use_installed_app()\n"
        "runner = sys.modules[RUNNER]\n"
        "assert runner.install_from_fab(b'no bundle', skip_prompt=True) is None\n"
        "load = runner.get_load_client_app_fn(default_app_ref='', app_path=None, multi_app=True)\n"
        "from client.app import app\n"
        "assert load('evil/app', '1.0', 'hash') is app\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_another_flower_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Flower loaded apps in another way, the node would run nothing instead of what it was sent."""
    monkeypatch.delattr(importlib.import_module(RUNNER), "install_from_fab")
    with pytest.raises(ConfigError, match="install_from_fab is not there"):
        use_installed_app()
