"""How many rounds a site has missed since it was admitted, and how its last replies were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconsent.config import dump_consortium
from server.metrics import StateCollector, rounds
from server.persistence import Enrolments, Roster, RoundLog, RoundRecord, SiteOutcome, StateDirectory
from tests.server.hospitals import consortium

OK, LATE = SiteOutcome(outcome="ok"), SiteOutcome(outcome="timeout", reason="no answer within 5 s")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    (tmp_path / "consortium.toml").write_text(dump_consortium(consortium()), encoding="utf-8")
    with StateDirectory.open(tmp_path / "state") as opened:
        yield opened


@pytest.fixture
def collector(state: StateDirectory) -> Iterator[StateCollector]:
    found = StateCollector(state.path, consortium=state.path.parent / "consortium.toml")
    yield found
    found.close()


def played(state: StateDirectory, *, failed: bool = False, **sites: SiteOutcome) -> None:
    """One more round of training, with these replies."""
    log = RoundLog(state)
    record = RoundRecord(line="main", kind="train", round=log.count("main") + 1, sites=sites)
    if failed:
        log.append_failed(record)
    else:
        log.append(record)


def missed(collector: StateCollector, site: str) -> float | None:
    return collector.samples().value(rounds.MISSED, site)


def test_failed_rounds_are_missed_too(state: StateDirectory, collector: StateCollector) -> None:
    """A site that makes every round fail has missed them all; one that answered in them none."""
    played(state, alpha=OK, beta=OK)
    for number in range(1, 4):
        played(state, failed=True, alpha=OK, beta=LATE)
        assert [missed(collector, site) for site in ("alpha", "beta", "gamma")] == [0, number, number + 1]
    played(state, alpha=OK, beta=OK)
    assert missed(collector, "beta") == 0


def test_nobody_missed_what_was_before_the_admission(
    state: StateDirectory, collector: StateCollector
) -> None:
    """Rounds count from the enrolment of a site's key, and anew after it was let in again; none before it."""
    keys, roster = Enrolments(state), Roster(state)
    keys.enrol("alpha", "a" * 64)
    for _ in range(5):
        played(state, alpha=OK)
    assert missed(collector, "beta") is None, "it has no key yet, so it cannot answer"
    keys.enrol("beta", "b" * 64)
    assert missed(collector, "beta") == 0
    played(state, alpha=OK)
    assert missed(collector, "beta") == 1
    played(state, alpha=OK, beta=LATE)
    samples = collector.samples()
    assert samples.value(rounds.RECENT, "beta", "unusable") == 1
    roster.enrol("gamma", 7, "brain", 10, round=8)
    played(state, alpha=OK, gamma=LATE)
    assert missed(collector, "gamma") == 1
    roster.bar(["gamma"])
    roster.withdraw(["gamma"])
    for _ in range(4):
        played(state, alpha=OK)
    assert missed(collector, "gamma") is None, "it has left"
    roster.return_of("gamma")
    samples = collector.samples()
    assert samples.value(rounds.MISSED, "gamma") == 0
    assert samples.value(rounds.RECENT, "gamma", "unusable") is None


def test_last_replies_are_counted_by_rounds(state: StateDirectory, collector: StateCollector) -> None:
    """Of each site the last ten in which it was asked count, whenever they were, failed ones among them."""
    for _ in range(12):
        played(state, alpha=OK, beta=OK)
    for _ in range(4):
        played(state, failed=True, alpha=OK, beta=LATE)
    samples = collector.samples()
    found = {
        site: [samples.value(rounds.RECENT, site, outcome) for outcome in ("usable", "unusable")]
        for site in ("alpha", "beta", "gamma")
    }
    assert found == {"alpha": [10, 0], "beta": [6, 4], "gamma": [None, None]}
