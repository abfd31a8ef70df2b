"""The page of methods is that of the registry, and says what a reader needs of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.methods_reference import page
from strategies import METHODS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current() -> None:
    """docs/methods.md is what `make docs` writes."""
    assert (DOCS / "methods.md").read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_has_its_source_its_cost_and_its_settings(name: str) -> None:
    """Of each method the section names the source and every setting of its own; the table, its cost."""
    method, written = METHODS[name], page()
    section = written.split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert method.source in section
    assert f"| [`{name}`](#{name}) |" in written
    assert method.cost_line in written
    inherited = METHODS["retain-ft"].settings_type.model_fields
    for key, field in method.settings_type.model_fields.items():
        if key not in inherited:
            assert f"`{field.alias or key}`" in section


def test_every_method_is_in_a_file_of_its_own() -> None:
    """No two methods share a module."""
    assert len({method.__module__ for method in METHODS.values()}) == len(METHODS)
