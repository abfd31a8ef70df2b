"""A benchmark made twice: only what both made is compared, and the page says what the files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.repeated import pairs, table
from cli.benchmark.store import Record, Store
from cli.gauge import Figures
from cli.trials import Attempt
from reconsent.errors import DataError

RESULTS = Path(__file__).parents[1] / "bench" / "results"
FIGURES = Figures({}, {}, {})


def record(method: str, retain: float, *, alpha: float = 1.0, failed: bool = False) -> Record:
    gaps = {"retain_test": retain, "forget_test": 0.3, "forget_train": 0.0}
    attempt = None if failed else Attempt(FIGURES, gaps, {"4": 0.5}, {})
    return Record("report", "a-0-knee", method, {"alpha": alpha}, FIGURES, FIGURES, attempt)


def test_what_both_made_is_compared() -> None:
    """Other settings and failures are left out; differences and distances are those counted by hand."""
    before = [record("retain-ft", 0.3), record("pga", 1.0), record("pga", 1.0, alpha=2.0)]
    after = [record("retain-ft", -0.6), record("pga", 1.0, failed=True), record("pga", 1.3, alpha=2.0)]
    lines = table(pairs(before, after)).splitlines()[2:]
    assert lines == [
        "| `pga` | 1 | 0.10 | 0.30 | 0.93 | 1.03 |",
        "| `retain-ft` | 1 | 0.30 | 0.90 | 0.70 | 0.80 |",
    ]


def test_nothing_in_common_is_an_error() -> None:
    """Two plans that share no attempt cannot be compared."""
    with pytest.raises(DataError, match="no attempt in common"):
        pairs([record("pga", 1.0)], [record("pga", 1.0, alpha=2.0)])


def test_the_page_has_the_table_of_the_files() -> None:
    """`docs/method.md` says what the command prints."""
    files = [RESULTS / name / "attempts.jsonl" for name in ("small_elsewhere", "small")]
    assert (
        table(pairs(*(Store(file).records for file in files)))
        in (Path(__file__).parents[1] / "docs" / "method.md").read_text()
    )
