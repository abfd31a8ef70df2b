"""Rounds of which too few replies were usable: nothing of them is kept but who failed, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconsent.errors import RoundError
from reconsent.exposition import Samples
from server.bookkeeping import MAIN
from server.metrics import StateCollector, rounds
from server.persistence import Ledger, RoundLog, StateDirectory, Withdrawals
from server.service import Service, Task
from server.status import status_of
from tests.server.hospitals import SITES, consortium, grid, opened

CONFIG = consortium(training={"min-sites": 3, "evaluate-every": 0})
ILL: dict[str, Any] = {"beta": {"fault": "train"}, "delta": {"claims": 0}}


def counted(state: Path, site: str, phase: str, outcome: str) -> float | None:
    """What the server's exporter says of a site's replies."""
    return scraped(state).value(rounds.REPLIES, site, phase, outcome)


def scraped(state: Path) -> Samples:
    """What the server's exporter says."""
    collector = StateCollector(state)
    try:
        return collector.samples()
    finally:
        collector.close()


def test_a_failed_round_tells_who_failed_and_why(tmp_path: Path) -> None:
    """Status, ledger and metrics name the sites; the round counts as none, and is repeated."""
    with opened(tmp_path, CONFIG, simulated=False) as run:
        Service(run.coordinator).carry_out(Task("train", 1))
    with opened(tmp_path, CONFIG, grid(**ILL), simulated=False) as run:
        with pytest.raises(RoundError, match="Round 2 got 2 acceptable replies and needs 3"):
            Service(run.coordinator).carry_out(Task("train", 1))
        found = status_of(run.coordinator.state, CONFIG)
        assert (found["round"], found["model"]["round"]) == (1, 1)
        assert found["refused_replies"] == {"beta": 1, "delta": 1}
        last = found["failed_rounds"]["last"]
        assert (last["round"], last["kind"], last["repeated"]) == (2, "train", False)
        assert {site: told["outcome"] for site, told in last["sites"].items()} == {
            "alpha": "ok",
            "beta": "failed",
            "gamma": "ok",
            "delta": "refused",
        }
        assert "beta has no power" in last["sites"]["beta"]["reason"]
        assert "must be a whole number above zero" in last["sites"]["delta"]["reason"]
        ledger = Ledger(run.coordinator.state)
        (entry,) = [entry for entry in ledger.entries() if entry.kind == "round-failed"]
        assert entry.body["sites"]["beta"] == {"outcome": "failed"}, "without the site's words"
        key = ledger.public_key()
        assert key is not None and ledger.audit([key]).sound
    samples = scraped(tmp_path / "state")
    missed = {site: samples.value(rounds.MISSED, site) for site in SITES}
    assert missed == {"alpha": 0, "beta": 1, "gamma": 0, "delta": 1}
    assert (
        samples.value(rounds.RECENT, "beta", "unusable")
        == samples.value(rounds.RECENT, "beta", "usable")
        == 1
    )
    assert counted(tmp_path / "state", "beta", "train", "failed") == 1
    assert counted(tmp_path / "state", "alpha", "train", "ok") == 2
    with opened(tmp_path, CONFIG, simulated=False) as run:
        Service(run.coordinator).carry_out(Task("resume"))
        found = status_of(run.coordinator.state, CONFIG)
        assert found["round"] == 2
        assert found["failed_rounds"]["count"] == 1 and found["failed_rounds"]["last"]["repeated"]
        assert [record.round for record in run.books.log.all(MAIN)] == [1, 2]


def test_a_failed_round_of_an_unlearning(tmp_path: Path) -> None:
    """It is on record as one of the unlearning, and changes nothing of how that ends."""
    # An ascent would blame its own step for the site that failed, and take it back.
    config = consortium(
        training={"min-sites": 3, "evaluate-every": 0}, unlearning={"method": "retain-ft", "settings": {}}
    )
    with opened(tmp_path, config, simulated=False) as run:
        Service(run.coordinator).carry_out(Task("train", 2))
        Withdrawals(run.coordinator.state).file(["gamma"], reason="asked", requested_by="officer")
    with opened(tmp_path, config, grid(**ILL), simulated=False) as run, pytest.raises(RoundError):
        Service(run.coordinator).carry_out(Task("unlearn"))
    with StateDirectory.open(tmp_path / "state", writable=False) as state:
        (failed,) = RoundLog(state).failed(MAIN)
        assert (failed.kind, failed.round, failed.sites["beta"].outcome) == ("retain", 3, "failed")
    assert counted(tmp_path / "state", "beta", "unlearn", "failed") == 1
    with opened(tmp_path, config, simulated=False) as run:
        Service(run.coordinator).carry_out(Task("unlearn"))
        assert [w["state"] for w in status_of(run.coordinator.state, config)["withdrawals"]] == ["completed"]
