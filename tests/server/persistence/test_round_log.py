"""The log of rounds, and named checkpoints."""

from __future__ import annotations

import dataclasses
import math

import pytest

from reconsent.errors import StateError
from server.persistence import RoundLog, RoundRecord, RunProgress, SiteOutcome, StateDirectory


def a_round(number: int, kind: str = "train", line: str = "main", **changes: object) -> RoundRecord:
    """A round of two sites, one of which timed out."""
    record = RoundRecord(
        line=line,
        kind=kind,
        round=number,
        sites={
            "north": SiteOutcome(
                outcome="ok", num_examples=40, update_norm=0.1 + number, loss=0.3, seconds=2.5,
                bytes_up=1000, bytes_down=900,
            ),
            "south": SiteOutcome(outcome="timeout", reason="no reply in 60 s", seconds=60.0, bytes_down=900),
        },
        metrics={"psnr": {"north": 31.5}, "note": "ü"},
        seconds=61.0,
    )  # fmt: skip
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def test_a_round_comes_back_as_it_was(state: StateDirectory) -> None:
    """Every number of every site survives exactly."""
    log = RoundLog(state)
    log.append(a_round(1))
    (stored,) = log.all("main")
    assert dataclasses.replace(stored, created_at=None) == a_round(1)
    assert stored.created_at is not None
    assert log.get("main", "train", 1) == stored
    assert log.get("main", "retain", 1) is None


def test_diverged_numbers_survive(state: StateDirectory) -> None:
    """A loss that is infinite or not a number is kept as such, in any nesting."""
    log = RoundLog(state)
    diverged = SiteOutcome(outcome="failed", loss=math.nan, update_norm=math.inf)
    log.append(a_round(1, sites={"north": diverged}, metrics={"deep": [{"x": -math.inf}]}))
    (stored,) = RoundLog(state).all("main")
    loss = stored.sites["north"].loss
    assert loss is not None
    assert math.isnan(loss)
    assert stored.sites["north"].update_norm == math.inf
    assert stored.metrics == {"deep": [{"x": -math.inf}]}


def test_appending_again_changes_nothing(state: StateDirectory) -> None:
    """The first record of a round stays; a second with another duration is the same round."""
    log = RoundLog(state)
    first = log.append(a_round(1))
    assert log.append(a_round(1, seconds=3.0)) == first
    assert log.all("main") == [first]


def test_a_contradicting_round_is_refused(state: StateDirectory) -> None:
    """A committed round cannot get another model version."""
    log = RoundLog(state)
    log.append(a_round(1))
    with pytest.raises(StateError, match=r"Round 1 \(train\) of line 'main' is already in the log"):
        log.append(a_round(1, model_version="0123456789abcdef"))


def test_counts_are_by_line_and_kind(state: StateDirectory) -> None:
    """Lines and kinds do not mix in counts, in the last round, or in the order."""
    log = RoundLog(state)
    assert (log.count("main"), log.last_round("main")) == (0, 0)
    for record in (a_round(1), a_round(2), a_round(3, "retain"), a_round(1, "oracle", "oracle-1")):
        log.append(record)
    assert (log.count("main"), log.count("main", "train"), log.count("main", "retain")) == (3, 2, 1)
    assert (log.last_round("main"), log.last_round("oracle-1")) == (3, 1)
    assert [record.round for record in log.all("main")] == [1, 2, 3]
    assert log.lines() == ["main", "oracle-1"]


def test_cost_counts_every_site_of_the_kinds_asked_for(state: StateDirectory) -> None:
    """Client seconds and bytes include those of a site whose reply never came."""
    log = RoundLog(state)
    for record in (a_round(1), a_round(2, "retain"), a_round(3, "retain"), a_round(1, "retain", "other")):
        log.append(record)
    cost = log.cost("main", {"retain"})
    assert (cost.rounds, cost.client_seconds, cost.seconds) == (2, 125.0, 122.0)
    assert (cost.bytes_up, cost.bytes_down) == (2000, 3600)
    assert log.cost("main", set()).rounds == 0


def test_checkpoints_are_overwritten_and_dropped(state: StateDirectory) -> None:
    """The last value under a key counts; a dropped key gives the default."""
    progress = RunProgress(state)
    progress.put("strategy", {"velocity": [0.1, math.nan], "step": 3})
    progress.put("strategy", {"velocity": [0.1, math.inf], "step": 4})
    progress.put("none", None)
    assert progress.get("strategy") == {"velocity": [0.1, math.inf], "step": 4}
    assert progress.get("none", "default") is None
    assert progress.keys() == ["none", "strategy"]
    progress.delete("strategy")
    progress.delete("strategy")
    assert progress.get("strategy", "default") == "default"


def test_a_checkpoint_that_is_no_json_is_refused_by_name(state: StateDirectory) -> None:
    """An object that JSON cannot hold is refused and the former value stays."""
    progress = RunProgress(state)
    progress.put("strategy", 1)
    with pytest.raises(StateError, match="checkpoint 'strategy' cannot be stored"):
        progress.put("strategy", {"model": object()})
    assert progress.get("strategy") == 1


def test_a_round_and_its_checkpoint_are_one_transaction(state: StateDirectory) -> None:
    """If the checkpoint fails the round is not there either."""
    log, progress = RoundLog(state), RunProgress(state)
    with pytest.raises(StateError), state.session() as session:
        log.append(a_round(1), session=session)
        progress.put("strategy", object(), session=session)
    assert log.all("main") == []
