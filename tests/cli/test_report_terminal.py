"""The terminal's table."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cli.report import render_table
from cli.report.verdict import judge
from tests.cli.results_builder import Outcome, build_results


@pytest.mark.parametrize("outcome", ["forgets", "remembers", "ruined"])
def test_terminal_table_fits(outcome: Outcome) -> None:
    """The table for the terminal is at most 80 columns wide and cuts nothing off."""
    console = Console(width=80, file=io.StringIO(), color_system=None)
    results = build_results(outcome)
    console.print(render_table(results))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert judge(results).headline in text
    assert "SIMULATION: not evidence" in text
    assert "…" not in text
    assert ("✗" in text) == (outcome != "forgets")
    assert "24.33" in text
