"""Help as wide as the terminal: docstrings are wrapped for the source, not for the reader."""

from __future__ import annotations

import inspect

import typer


def unwrap(text: str) -> str:
    """Join the lines of each paragraph; headings, examples and lists stay as they are written.

    Parameters
    ----------
    text
        A docstring, its indentation taken off.
    """
    return "\n\n".join(_joined(paragraph) for paragraph in text.split("\n\n"))


def _joined(paragraph: str) -> str:
    lines = paragraph.split("\n")
    plain = all(line[:1].strip() and not line.startswith(("---", "- ", "* ")) for line in lines)
    return " ".join(lines) if plain else paragraph


def unwrap_all(app: typer.Typer) -> None:
    """Unwrap the help of every command of an application, and of those below it."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.help = unwrap(command.help or inspect.getdoc(command.callback) or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            unwrap_all(group.typer_instance)
