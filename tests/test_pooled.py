"""Benchmarks pooled: by hand on small numbers, and the page says what the files say."""

from __future__ import annotations

from pathlib import Path

from bench.pooled import difference_table, distance_table, distances

FOUND = {
    "one": {"cached-ascent": [0.2, 0.4], "retain-ft": [0.5, 0.5], "pga": [1.0, 1.0]},
    "two": {"cached-ascent": [0.6, 0.8], "retain-ft": [0.5, 0.9]},
}


def test_what_all_have_is_pooled() -> None:
    """Means and deviations over the cases of each and of all; a method that one lacks is left out."""
    assert distance_table(FOUND).splitlines()[2:] == [
        "| `cached-ascent` | 0.30 ± 0.14 | 0.70 ± 0.14 | 0.50 ± 0.26 |",
        "| `retain-ft` | 0.50 ± 0.00 | 0.70 ± 0.28 | 0.60 ± 0.20 |",
    ]


def test_differences_are_taken_case_by_case() -> None:
    """0.3, 0.1, −0.1 and 0.1: a mean of 0.1, a deviation of 0.163 over the root of four."""
    assert difference_table(FOUND).splitlines()[2:] == ["| `retain-ft` | +0.10 | 0.08 | 3/4 |"]


def test_the_page_has_the_tables_of_the_files() -> None:
    """`docs/method.md` says what the command prints."""
    found = {plan: distances(plan) for plan in ("small", "fresh")}
    page = (Path(__file__).parents[1] / "docs" / "method.md").read_text()
    assert distance_table(found) in page and difference_table(found) in page
