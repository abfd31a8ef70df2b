"""What the tests of deployment files share: where they are, and whether a command line is one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import typer.main
import yaml

from cli.main import app

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"


def parse_command(words: Sequence[str]) -> Any:
    """Parse the words after ``reconsent`` as the program would, without running anything.

    Returns
    -------
    The context of the command, which knows its parameters.

    Raises
    ------
    Exception
        A usage error of the command line's library, if a command, an option or an argument is none, or one
        is missing.
    """
    command: Any = typer.main.get_command(app)
    context = command.context_class(command, info_name="reconsent")
    rest = list(words)
    while hasattr(command, "resolve_command"):
        if command.invoke_without_command and rest[:1] and rest[0].startswith("-"):
            break  # options of a group that is a command, too
        name, command, rest = command.resolve_command(context, rest)
        context = command.context_class(command, parent=context, info_name=name)
    return command.make_context(context.info_name, rest, parent=context.parent)


@lru_cache
def flower_options(program: str) -> frozenset[str]:
    """The options that one of Flower's programs says it has."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / program), "--help"], capture_output=True, text=True, check=True
    )
    return frozenset(re.findall(r"--[a-z][a-z-]+", done.stdout))


def yaml_documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def interpolated(text: str, values: Mapping[str, str]) -> str:
    """Fill in ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` as Compose does."""

    def fill(match: re.Match[str]) -> str:
        name, kind, word = match.groups()
        if values.get(name):
            return values[name]
        if kind == "?":
            raise KeyError(word)
        return word or ""

    return re.sub(r"\$\{(\w+)(?::([-?])([^}]*))?\}", fill, text)


def reconsent_lines(text: str) -> list[list[str]]:
    """The words after ``reconsent`` of every line of ``sh`` blocks in a page, continued lines joined."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "reconsent" in words:
                found.append(words[words.index("reconsent") + 1 :])
    return found
