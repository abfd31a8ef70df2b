"""Flower's ``flwr-clientapp``, but the app is the one that is installed at the site, never one that was sent.

A Flower server sends the app's code with each run, and a site runs it with its own rights. A hospital need
not: the app is Reconsent, and Reconsent is installed here, or the node could not have been started. So what a
run sends is not even unpacked. Policy, log and the guard of error texts then hold against any server, since
they are the hospital's own code.

The SuperNode starts its app by the name ``flwr-clientapp``; a program of that name, first in the node's PATH,
has :func:`main` called: in a child of a process that waits (:mod:`client.node.warm`), or else in one of its
own.
"""

from __future__ import annotations

import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from client.node import knock
from reconsent.errors import ConfigError

RUNNER = "flwr.supernode.runtime.run_clientapp"
REPLACED = ("install_from_fab", "get_load_client_app_fn", "get_project_dir")
"""What Flower calls, to unpack and to load a received app; the last only finds its place."""


def main() -> None:
    """Run one message, as ``flwr-clientapp`` does, with the installed app.

    Raises
    ------
    ConfigError
        If this Flower does not load apps the way it is known to; nothing is run then.
    """
    use_installed_app()
    command = import_module("flwr.supernode.cli").flwr_clientapp
    command()


def use_installed_app() -> None:
    """Make Flower's runner, in this process, take :data:`client.app.app` whatever it was sent.

    Raises
    ------
    ConfigError
        If Flower has no such runner.
    """
    runner = import_module(RUNNER)
    missing = [name for name in REPLACED if not callable(getattr(runner, name, None))]
    if missing:
        raise ConfigError(
            f"This version of Flower loads apps in another way ({', '.join(missing)} is not there).",
            "Install the version that Reconsent names.",
        )

    def unpack(_bundle: object, **_options: object) -> None:
        """Leave what was sent as it is."""

    def place(*_names: object) -> Path:
        return Path()

    def loader(**_options: object) -> Any:
        def load(*_names: object) -> Any:
            return import_module("client.app").app

        return load

    for name, replacement in zip(REPLACED, (unpack, loader, place), strict=True):
        setattr(runner, name, replacement)


def write_program(directory: Path) -> Path:
    """Write the program ``flwr-clientapp`` into ``directory``, for the Python that runs now.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    path = directory / "flwr-clientapp"
    # By /bin/sh: a first line may not be long, and a path with blanks cannot stand in one.
    command = shlex.join([sys.executable, "-I", "-S", knock.__file__, str(directory)])
    text = f'#!/bin/sh\nexec {command} "$@"\n'
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error}.", "Set flower-home to a place that is."
        ) from None
    return path
