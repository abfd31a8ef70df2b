"""What goes from the server's books into the results, and from there into the story."""

from __future__ import annotations

import math

import pytest

from cli.gathering import Measurements, _round
from cli.report.verdict import judge
from server.persistence import RoundRecord, SiteOutcome
from tests.cli.results_builder import build_results


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_results_hold_numbers_only(value: float) -> None:
    """A loss or a quality that is no number is left out of the results, which refuse it."""
    good = {"psnr": 20.0, "ssim": 0.5, "nmse": 0.1}
    record = RoundRecord(
        line="main",
        kind="train",
        round=1,
        sites={"a": SiteOutcome(outcome="ok", num_examples=3, loss=value)},
        metrics={"evaluation": {"a": {**good, "psnr": value}, "b": good}},
        seconds=1.0,
        model_version=None,
    )
    result = _round(record, Measurements())
    assert result.sites["a"].train_loss is None
    assert result.evaluation is not None
    assert set(result.evaluation) == {"b"}


def test_story_counts_the_steps_that_were_kept() -> None:
    """Steps are those of the unlearning that were accepted; its rounds are all of its rounds."""
    results = build_results("forgets")
    assert {r.kind for r in results.rounds if r.line == "main"} == {"train", "retain"}
    story = " ".join(judge(results).story).replace("\u00a0", " ")
    assert "two steps away from its contribution" in story
    assert "six rounds in which only the remaining hospitals trained" in story
