"""What the README shows works as it is written there."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from cli.main import app
from reconsent.config import parse_consortium
from strategies import messages as msg
from strategies.local_grid import LocalGrid
from tests.linear_app import model, quadratic_app

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_strategy_snippet_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of the README runs on a Flower grid, and ends nearer to the model of the others."""
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)  # noqa: S102 - it is our own page
    centres = {1: np.array([1.0, 0.0]), 2: np.array([0.0, 1.0]), 3: np.array([8.0, 8.0])}
    grid = LocalGrid(quadratic_app(centres, rate=0.1), {node: {"examples": 1} for node in centres})
    unlearned = names["train_and_forget"](grid, model(np.zeros(2)), "node-3")
    others = (centres[1] + centres[2]) / 2
    original = (1 - 0.9**20) * sum(centres.values()) / 3
    distance = np.linalg.norm(msg.named_arrays(unlearned)["theta"] - others)
    assert distance < 0.8 * np.linalg.norm(original - others)


def test_consortium_of_the_readme_is_one() -> None:
    """The TOML of the README fits the schema."""
    (example,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    config = parse_consortium(tomllib.loads(example), where="README.md", base=Path())
    assert [site.name for site in config.sites] == ["clinic-a", "clinic-b"]


def test_commands_of_the_readme_exist() -> None:
    """Every `reconsent …` line parses: command, arguments and options are known."""
    lines = re.findall(r"^ {4}\.venv/bin/reconsent (.*)$", README, re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        words = shlex.split(line, comments=True)
        command: Any = typer.main.get_command(app)
        context = typer.Context(command, info_name="reconsent")
        while hasattr(command, "commands"):
            name, *words = words
            command = command.get_command(context, name)
            assert command is not None, line
        command.make_context(command.name, words, resilient_parsing=False)
