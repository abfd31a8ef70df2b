"""Help as wide as the terminal."""

from __future__ import annotations

from typer.testing import CliRunner

from cli.help_text import unwrap
from cli.main import app


def test_paragraphs_are_joined_and_examples_kept() -> None:
    """A paragraph becomes one line; headings, examples and lists keep theirs."""
    text = "What it\ndoes.\n\nExamples\n--------\n  reconsent up\n\n  reconsent down\n\n- one\n- two"
    assert (
        unwrap(text)
        == "What it does.\n\nExamples\n--------\n  reconsent up\n\n  reconsent down\n\n- one\n- two"
    )


def test_no_line_of_the_help_is_broken_by_the_source() -> None:
    """At a terminal wider than the source, a sentence is not broken where its docstring was."""
    shown = CliRunner().invoke(app, ["up", "--help"], env={"COLUMNS": "240"}).output
    assert "What runs already is left alone, what died is started again with the same keys" in shown
    assert "reconsent up demo --sites 3" in shown
