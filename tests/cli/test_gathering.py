"""What goes from the server's books into the results, and from there into the story."""

from __future__ import annotations

import math
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from cli.assessment import result_of
from cli.gathering import Measurements, _round, _unlearning, models_of, watching
from cli.report.verdict import judge
from reconsent.errors import ReconsentError
from server.metrics import StateCollector, unlearning
from server.persistence import RoundRecord, SiteOutcome
from tests.cli.results_builder import build_results
from tests.server.hospitals import consortium, opened


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


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("federaser", {}),
        ("cached-ascent", {"alpha": 0.5}),
        ("cached-ascent", {"alpha": 0.1, "unit": "contribution"}),
    ],
)
def test_only_steps_of_cached_ascent_are_such(
    method: str, settings: dict[str, object], tmp_path: Path
) -> None:
    """Results and metrics count the same steps, of lengths that add up to α; other methods have none."""
    plan = {"method": method, "settings": settings, "rounds-fraction": 0.5}
    config = consortium(withdrawals=({"sites": ("delta",)},), unlearning=plan)
    with opened(tmp_path, config) as run:
        run.coordinator.run()
        steps = _unlearning(run.books, config).steps
        collector = StateCollector(tmp_path / "state")
        samples = collector.samples()
        collector.close()
    assert samples.value(unlearning.STEPS, "kept") == len(steps)
    assert sum(step.alpha for step in steps) == pytest.approx(settings.get("alpha", 0.0))
    last = (steps[-1].alpha, steps[-1].step_norm) if steps else (None, None)
    assert (samples.value(unlearning.ALPHA), samples.value(unlearning.STEP_NORM)) == last


def test_one_after_the_other_leaves_no_model_as_long_as_the_oracle(tmp_path: Path) -> None:
    """G is the model before the first withdrawal: as long as the oracle only if nothing was trained since."""
    for rounds, shorter in (((4, 4), False), ((2, 4), True)):
        leaving = [
            {"sites": (site,), "at-round": at} for site, at in zip(("delta", "gamma"), rounds, strict=True)
        ]
        with opened(tmp_path / str(shorter), consortium(withdrawals=tuple(leaving))) as run:
            run.coordinator.run()
            assert models_of(run.books).shorter is shorter


def test_watching_the_remaining_sites_is_a_cost() -> None:
    """Seconds and bytes of the losses asked for are added up; a round without any costs nothing."""
    notes = [{"gate-seconds": 1.5, "gate-bytes": 10.0}, {}, {"gate-seconds": math.nan, "gate-bytes": 2.0}]
    assert watching(notes) == (1.5, 12)


def test_a_killed_process_is_no_traceback() -> None:
    """A worker that the kernel killed is said in words, with what to do."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        killed = pool.submit(os._exit, 9)
        with pytest.raises(ReconsentError, match="killed") as caught:
            result_of(killed)
    assert "--workers" in caught.value.remedy
