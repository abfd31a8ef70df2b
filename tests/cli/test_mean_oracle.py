"""Methods against the mean of several oracles, by figures worked out by hand."""

from __future__ import annotations

import pytest

from cli.benchmark.floor import ANOTHER, settings_of
from cli.benchmark.mean_oracle import against_the_mean
from cli.benchmark.score import GAPS
from cli.benchmark.store import Record, Stage
from cli.gauge import Figures
from cli.trials import Attempt


def figures(psnr: float) -> Figures:
    """The same PSNR everywhere."""
    return Figures(dict.fromkeys(GAPS, psnr), dict.fromkeys(GAPS, 0.9), {"4": psnr, "8": psnr})


def record(psnr: float | None, oracle: float, *, case: str = "a", number: int = 0) -> Record:
    """A method's record, or with a number that of another oracle."""
    stage: Stage = "floor" if number else "report"
    name = ANOTHER if number else "retain-ft"
    settings = settings_of(number) if number else {}
    attempt = None
    if psnr is not None:
        gap = psnr - oracle
        attempt = Attempt(
            figures(psnr), dict.fromkeys(GAPS, gap), {"4": gap, "8": gap}, {"slices": 0.2, "rounds": 0.1}
        )
    return Record(stage, case, name, settings, figures(30.0), figures(oracle), attempt)


def test_a_method_is_held_against_the_mean_of_all_oracles() -> None:
    """Oracles at 20, 21 and 22 dB: 21.5 is 0.5 above their mean; each is 1.5, 0 or 1.5 from the other two."""
    others = [record(21.0, 20.0, number=1), record(22.0, 20.0, number=2)]
    found = against_the_mean({"retain-ft": [record(21.5, 20.0)]}, others)
    assert found is not None and found.oracles == 3
    (row,) = found.rows
    assert row.gaps["forget_test"].mean == pytest.approx(0.5)
    assert row.score.mean == pytest.approx(1.0), "the gap, and as much after relearning"
    assert sorted(found.other.all_scores) == pytest.approx([0.0, 3.0, 3.0])
    assert found.other.cases == 3


def test_without_other_oracles_in_every_case_there_is_no_mean() -> None:
    """A case of which only one oracle is known would be held against something else than the rest."""
    reported = {"retain-ft": [record(21.5, 20.0), record(21.5, 20.0, case="b")]}
    assert against_the_mean(reported, []) is None
    assert against_the_mean(reported, [record(21.0, 20.0, number=1)]) is None


def test_a_method_that_failed_somewhere_is_left_out() -> None:
    """It has no figures of that case."""
    others = [record(21.0, 20.0, number=1), record(23.0, 22.0, case="b", number=1)]
    kept = [record(21.5, 20.0), record(21.5, 22.0, case="b")]
    failed = [record(21.5, 20.0), record(None, 22.0, case="b")]
    found = against_the_mean({"retain-ft": kept, "full-ft": failed}, others)
    assert found is not None and [row.method for row in found.rows] == ["retain-ft"]
    assert found.rows[0].scores == pytest.approx({"a": 2.0, "b": 2.0})
