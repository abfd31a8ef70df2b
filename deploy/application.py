"""The Flower app that is submitted: the checkout's, or one put together from the installed packages.

A checkout is itself an app: its ``pyproject.toml`` describes it. An installed Reconsent has no such file,
so the sources of its packages are copied beside one that is written here.
"""

from __future__ import annotations

import importlib.util
import shutil
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import tomli_w

from reconsent import __version__
from reconsent.errors import DeployError
from server.persistence.state import explaining_os_errors

PACKAGES = ("reconsent", "mri", "unlearning", "strategies", "client", "server")
"""What a site runs or may want to read."""

FLOWER_TABLE: dict[str, Any] = {
    "publisher": "reconsent",
    "fab-format-version": 1,
    "flwr-version-target": "1.39.0",
    "fab-include": [
        "LICENSE",
        "README.md",
        "reconsent/**/*.py",
        "reconsent/presets/*.toml",
        "mri/**/*.py",
        "unlearning/**/*.py",
        "strategies/**/*.py",
        "client/**/*.py",
        "server/**/*.py",
    ],
    "components": {"serverapp": "server.app:app", "clientapp": "client.app:app"},
    "config": {"consortium": "tiny", "state": "", "task": "plan", "rounds": 0, "request": ""},
}
"""The table ``[tool.flwr.app]``; a test compares it with the checkout's."""


def application_directory(target: Path) -> Path:
    """The directory to submit a run from.

    Parameters
    ----------
    target
        Where an app is put together if Reconsent is installed rather than a checkout.

    Raises
    ------
    DeployError
        If a package or the licence is not found.
    StateError
        If ``target`` cannot be written.
    """
    root = _package("reconsent").parent
    return root if is_checkout(root) else assemble(target / "reconsent")


def is_checkout(root: Path) -> bool:
    """Whether ``root`` has the ``pyproject.toml`` of Reconsent itself."""
    try:
        table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return False
    return bool(table.get("project", {}).get("name") == "reconsent")


def assemble(target: Path) -> Path:
    """Copy the installed packages into ``target`` and describe them; whatever was there is replaced.

    Raises
    ------
    DeployError
        If a package or the licence is not found.
    StateError
        If ``target`` cannot be written.
    """
    licence = _licence()
    with explaining_os_errors(f"The directory of the app {target}"):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700, parents=True)
        for name in PACKAGES:
            shutil.copytree(_package(name), target / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(licence, target / "LICENSE")
        (target / "README.md").write_text(
            "# Reconsent\n\nPut together from the installed packages.\n", encoding="utf-8"
        )
        project = {
            "name": "reconsent",
            "version": __version__,
            "description": "Federated MRI reconstruction that can take a withdrawn hospital out again",
            "license": {"file": "LICENSE"},
            "dependencies": ["flwr[simulation]>=1.39,<1.40"],
        }
        text = tomli_w.dumps({"project": project, "tool": {"flwr": {"app": FLOWER_TABLE}}})
        (target / "pyproject.toml").write_text(text, encoding="utf-8")
    return target


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise DeployError(f"The package '{name}' is not installed.", "Install Reconsent again.")
    return Path(found.origin).parent


def _licence() -> Path:
    beside = _package("reconsent").parent / "LICENSE"
    if beside.is_file() and is_checkout(beside.parent):
        return beside
    try:
        files = distribution("reconsent").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "LICENSE" and ".dist-info" in str(file):
            return Path(str(file.locate()))
    raise DeployError("The licence of Reconsent is not installed.", "Install Reconsent again.")
