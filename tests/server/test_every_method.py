"""Every method of unlearning, from the filed withdrawal to the erased contributions, by the real server."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from reconsent.errors import ConfigError, RoundError
from server.accountability import FRESH_METHODS
from server.bookkeeping import MAIN
from server.persistence import Ledger, SiteStatus
from strategies import METHODS
from tests.server.hospitals import Run, consortium, grid, opened
from unlearning.withdrawal import WithdrawalState

COOPERATIVE = ("pga", "ga-l1", "nl", "ga-l1-ft", "nl-ft")
PLANS: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in METHODS},
    "cached-ascent": {"method": "cached-ascent", "settings": {"alpha": 0.5}},
    "cached-rollback": {
        "method": "cached-ascent",
        "settings": {"rollback": 0.7, "damping": 0.1, "alpha": 0.5, "guard": "span"},
    },
    "rollback-anchor": {"method": "rollback", "settings": {"to": "anchor", "residue": 0.9}},
}


def plan(name: str, **more: Any) -> Any:
    """A withdrawal of the last site after all rounds, by the method called ``name``."""
    unlearning = {"settings": {}, "rounds-fraction": 0.5, **PLANS[name]}
    leaving = {"sites": ("delta",), "cooperating": unlearning["method"] in COOPERATIVE}
    kept = {"anchors": [0.34, 0.67], "history-dtype": "float32"}
    return consortium(
        withdrawals=(leaving,),
        unlearning=unlearning,
        contributions=kept,
        assessment={"oracle": False},
        **more,
    )


def summary(run: Run) -> tuple[Any, ...]:
    """What must be the same whether or not the run was killed."""
    rounds = [(r.kind, r.round, r.model_version) for r in run.books.log.all(MAIN)]
    kept = run.coordinator.cache
    return run.digests(), rounds, [kept.running(site, "sum").tobytes() for site in kept.sites()]


@cache
def undisturbed(name: str) -> tuple[Any, ...]:
    """What a run ends with that nothing happens to."""
    with TemporaryDirectory() as path, opened(Path(path), plan(name)) as run:
        run.coordinator.run()
        return summary(run)


@pytest.mark.parametrize("name", list(PLANS))
def test_a_withdrawal_is_completed_by_it(name: str, tmp_path: Path) -> None:
    """The model changes, the site is in no later update, and nothing of it is kept."""
    nodes = grid()
    with opened(tmp_path, plan(name), nodes) as run:
        run.coordinator.run()
        (record,) = run.coordinator.withdrawals.all()
        assert record.state is WithdrawalState.COMPLETED
        assert record.cooperating is (PLANS[name]["method"] in COOPERATIVE)
        unlearned = run.books.version(MAIN, "unlearned")
        assert unlearned.forgotten == ("delta",)
        trained = run.books.registry.all(MAIN)[6]
        assert trained.round == 6
        assert unlearned.digest != trained.digest
        assert np.isfinite(run.theta(MAIN, "unlearned")).all()
        assert "delta" not in run.coordinator.cache.sites()
        read = {
            site
            for entry in Ledger(run.coordinator.state).entries(["contributions-read"])
            for site in entry.body["sites"]
        }
        assert read == READ.get(name, set() if record.method in FRESH_METHODS else {"delta"})
        dropped = list(Ledger(run.coordinator.state).entries(["contributions-dropped"]))
        assert all(entry.body["withdrawal"] == record.id for entry in dropped)
        assert dropped or name not in ("rollback-anchor", "cached-rollback")
        assert run.books.roster.get("delta").status is SiteStatus.WITHDRAWN
        retained = [r for r in run.books.log.all(MAIN) if r.kind == "retain"]
        asked = {site for r in retained for site in r.sites}
        assert ("delta" in asked) is record.cooperating
        if METHODS[record.method or ""].claim_level == "exact_retrain" and name != "rollback-anchor":
            assert "delta" not in unlearned.lineage


EVERYBODY = {"alpha", "beta", "gamma", "delta"}
READ: dict[str, set[str]] = {
    **{name: set() for name in (*COOPERATIVE, "weight-negation")},
    **dict.fromkeys(("cached-rollback", "pga-cached", "pga"), EVERYBODY),
    "federaser": EVERYBODY - {"delta"},
}
"""Whose contributions a method reads, where it is not: nobody's if it is fresh, else the withdrawn site's."""


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (1, "rollback"),
        (1, "subtract-distil"),
        (1, "pga"),
        (2, "cached-rollback"),
        (2, "federaser"),
        (2, "rollback-anchor"),
        (2, "nl-ft"),
    ],
)
def test_a_killed_unlearning_goes_on(
    name: str, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its first or second round is kept, it ends with the very models of a run that was not."""
    from server.bookkeeping import Bookkeeping

    real, calls = Bookkeeping.commit, [0]

    def dying(self: Bookkeeping, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("method"):
            calls[0] += 1
            if calls[0] == call:
                raise KilledError
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch, opened(tmp_path, plan(name)) as run:
        patch.setattr(Bookkeeping, "commit", dying)
        with pytest.raises(KilledError):
            run.coordinator.run()
    with opened(tmp_path, plan(name)) as run:
        run.coordinator.run()
        assert summary(run) == undisturbed(name)


def test_a_cooperating_site_may_do_nothing_else(tmp_path: Path) -> None:
    """After it withdrew it is asked for its part in the rounds of unlearning, and never afterwards."""
    nodes = grid()
    with opened(tmp_path, plan("ga-l1-ft", **{"continue-rounds": 2}), nodes) as run:
        run.coordinator.run()
        after = run.sent_at["The run has ended."]
        begun = next(n for text, n in run.sent_at.items() if text.startswith("Unlearning delta"))
        done = next(n for text, n in run.sent_at.items() if "completed" in text)
        to_delta = [m.metadata.message_type for m in nodes.sent[begun:done] if m.metadata.dst_node_id == 4]
        assert to_delta == ["train"] * 3
        assert all(m.metadata.dst_node_id != 4 for m in nodes.sent[done:after])


def test_a_cooperating_site_that_fails_fails_the_withdrawal(tmp_path: Path) -> None:
    """Its withdrawal has failed with its name and can be taken up again once it answers."""
    nodes = grid()
    real = nodes.push_messages

    def cut(messages: Any) -> Any:
        listed = list(messages)
        if any(m.metadata.group_id == "8" for m in listed):
            nodes._nodes[4] = {**nodes._nodes[4], "fault": "train"}
        return real(listed)

    nodes.push_messages = cut  # type: ignore[method-assign]
    with opened(tmp_path, plan("nl-ft"), nodes) as run, pytest.raises(RoundError, match="delta"):
        run.coordinator.run()
    with opened(tmp_path, plan("nl-ft")) as run:
        (record,) = run.coordinator.withdrawals.all()
        assert record.state is WithdrawalState.FAILED
        run.coordinator.run()
        assert summary(run) == undisturbed("nl-ft")


@pytest.mark.parametrize(
    ("method", "contributions", "wanted"),
    [
        ("federaser", {"history-every": 0}, "history-every"),
        ("pga-cached", {"history-every": 2}, "history-every"),
        ("rollback", {}, "anchors"),
        ("nl-ft", {}, "--cooperating"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_trained(
    method: str, contributions: dict[str, Any], wanted: str, tmp_path: Path
) -> None:
    """A plan whose method needs what is not kept is refused at once, with the setting that keeps it."""
    settings = {"to": "anchor"} if method == "rollback" else {}
    refused = consortium(
        withdrawals=({"sites": ("delta",)},),
        unlearning={"method": method, "settings": settings},
        contributions=contributions,
    )
    nodes = grid()
    with opened(tmp_path, refused, nodes) as run, pytest.raises(ConfigError, match=wanted):
        run.coordinator.run()
    assert not nodes.sent
