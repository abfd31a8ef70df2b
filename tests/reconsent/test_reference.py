"""The reference of the consortium file against the schema and the presets."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from reconsent.config import PRESETS, parse_consortium
from reconsent.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def keys_of(table: dict[str, Any]) -> set[str]:
    """Every key of a TOML file whose value is no table of the schema."""
    found = set()
    for key, value in table.items():
        rows = value if isinstance(value, list) else [value]
        if rows and isinstance(rows[0], dict) and key != "settings":
            found |= {inner for row in rows for inner in keys_of(row)}
        else:
            found.add(key)
    return found


def test_page_is_fresh() -> None:
    """docs/configuration.md is what `make docs` would write now."""
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `make docs`"


def test_every_key_has_a_meaning() -> None:
    """No row of the reference leaves its last cell empty."""
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert not [row for row in rows if re.search(r"\|\s*\|$", row)]


def test_every_key_of_the_presets_is_in_the_reference() -> None:
    """The tables miss none of the keys that the presets use."""
    text = reference()
    for preset in PRESETS.glob("*.toml"):
        used = keys_of(tomllib.loads(preset.read_text(encoding="utf-8")))
        assert {key for key in used if f"| `{key}` |" not in text} == set()


def test_the_example_is_a_consortium() -> None:
    """The TOML at the head of the page fits the schema."""
    (example,) = re.findall(r"```toml\n(.*?)```", reference(), re.DOTALL)
    config = parse_consortium(tomllib.loads(example), where="the example", base=Path())
    assert [site.name for site in config.sites] == ["clinic-a", "clinic-b"]
