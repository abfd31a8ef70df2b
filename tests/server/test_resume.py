"""A run that is killed, however and wherever, ends with the very models of one that is not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from server.bookkeeping import MAIN, ORACLE, Bookkeeping
from tests.server.hospitals import Run, consortium, opened

PLANS: dict[str, dict[str, Any]] = {
    "cached-ascent": {
        "unlearning": {
            "rounds-fraction": 0.5,
            "settings": {"alpha": 0.5, "ascent-rounds": 2, "momentum": 0.6, "final-alpha": 0.1},
        },
    },
    # A first step that is far too long is taken back and halved: the halving must survive.
    "backtracking": {
        "unlearning": {
            "rounds-fraction": 0.7,
            "settings": {
                "alpha": 8.0,
                "ascent-rounds": 1,
                "direction": "sum",
                "tolerance": 0.1,
                "orthogonalise": True,
                "guard": "return",
            },
        },
    },
    "retrain": {"unlearning": {"method": "retrain", "settings": {}}},
}


class KilledError(Exception):
    """Stands for the end of the process: nothing in the server catches it."""


def config(plan: str) -> Any:
    """A withdrawal at the end, then more training and an oracle."""
    return consortium(withdrawals=({"sites": ("delta",)},), continue_rounds=2, **PLANS[plan])


def summary(run: Run) -> tuple[Any, ...]:
    """All that must be the same: final models, rounds, contributions, withdrawal."""
    books = run.books
    rounds = [
        (line, r.kind, r.round, r.model_version) for line in (MAIN, ORACLE) for r in books.log.all(line)
    ]
    cache = run.coordinator.cache
    sums = [cache.running(site, "sum").tobytes() for site in cache.sites()]
    states = [record.state for record in run.coordinator.withdrawals.all()]
    files = sorted(file.name for file in run.coordinator.state.models_dir.iterdir())
    return run.digests(), rounds, sums, states, files


@cache
def undisturbed(plan: str) -> tuple[Any, ...]:
    """What a run ends with that nothing happens to."""
    with TemporaryDirectory() as path, opened(Path(path), config(plan)) as run:
        run.coordinator.run()
        return summary(run)


def kill_at(target: Any, name: str, call: int, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
    """Have the ``call``-th call of a method end the process, before or after it did its work."""
    real: Callable[..., Any] = getattr(target, name)
    count = 0

    def killing(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == call and not after:
            raise KilledError
        result = real(*args, **kwargs)
        if count == call:
            raise KilledError
        return result

    monkeypatch.setattr(target, name, killing)


@pytest.mark.parametrize(
    ("plan", "commit", "after"),
    [
        # After one commit is before the next but for what lies between, so not everything needs both.
        *(("cached-ascent", commit, False) for commit in (1, 7, 9, 14)),
        *(("cached-ascent", commit, True) for commit in (4, 8, 11)),
        ("backtracking", 9, False),
        ("retrain", 8, True),
    ],
)
def test_killed_at_a_commit(
    plan: str, commit: int, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before or after a commit of training, unlearning or oracle, the next run ends bit-identical."""
    with monkeypatch.context() as patch, pytest.raises(KilledError), opened(tmp_path, config(plan)) as run:
        kill_at(run.books, "commit", commit, patch, after=after)
        run.coordinator.run()
    with opened(tmp_path, config(plan)) as run:
        run.coordinator.run()
        assert summary(run) == undisturbed(plan)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_killed_between_the_states_of_a_withdrawal(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after any step of the withdrawal, the next run completes it with each step once."""
    plan = "cached-ascent"
    with monkeypatch.context() as patch, pytest.raises(KilledError), opened(tmp_path, config(plan)) as run:
        kill_at(run.coordinator.withdrawals, "advance", step, patch, after=True)
        run.coordinator.run()
    with opened(tmp_path, config(plan)) as run:
        run.coordinator.run()
        assert summary(run) == undisturbed(plan)
        register = run.coordinator.withdrawals
        (record,) = register.all()
        assert len(register.events(record.id)) == 6


def test_backtracking_happened() -> None:
    """The plan for backtracking has a round that is taken back, or the test above shows nothing."""
    rounds = undisturbed("backtracking")[1]
    versions = [version for line, kind, _, version in rounds if line == MAIN and kind == "retain"]
    before = next(version for line, kind, number, version in rounds if (line, number) == (MAIN, 6) and kind)
    assert versions[0] == before


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    """Run again after its end, a plan asks the sites nothing but who they are."""
    for _ in range(2):
        with opened(tmp_path, config("cached-ascent")) as run:
            run.coordinator.run()
            assert summary(run) == undisturbed("cached-ascent")
    assert run.texts("round") == []


def test_files_of_models_are_pruned(tmp_path: Path) -> None:
    """Kept are the newest two, the evaluated, G, the unlearned, the initial and the anchors; no others."""
    plan = config("cached-ascent").model_copy(
        update={"contributions": consortium(contributions={"anchors": (0.6,)}).contributions}
    )
    with opened(tmp_path, plan) as run:
        run.coordinator.run()
        main = run.books.registry.all(MAIN)
        kept = {(v.kind, v.round) for v in main if not v.pruned}
        assert kept == {
            ("initial", 0),
            ("train", 3),  # evaluated
            ("train", 4),  # anchor: 0.6 of six rounds
            ("train", 6),  # evaluated, and G
            *(("retain", t) for t in (7, 8, 9)),  # evaluated
            ("unlearned", 9),
            *(("train", t) for t in (10, 11)),  # the newest two
        }
        files = {file.name for file in run.coordinator.state.models_dir.iterdir()}
        assert files == {v.filename for v in run.books.registry.all() if not v.pruned}
        run.books.retention.prune_to([v for v in main if v.kind == "unlearned"])
        kept = {(v.line, v.kind, v.round) for v in run.books.registry.all() if not v.pruned}
        assert kept == {
            (MAIN, "initial", 0),
            (MAIN, "unlearned", 9),
            (MAIN, "train", 11),
            (ORACLE, "retain", 6),
        }


def test_pruning_remembers_across_restarts(tmp_path: Path) -> None:
    """A new server finds from the database alone what the one before it protected."""
    plan = config("cached-ascent")
    with opened(tmp_path, plan) as run:
        run.coordinator.run()
        kept = [v.id for v in run.books.registry.all() if not v.pruned]
        again = Bookkeeping(run.coordinator.state)
        for line in (MAIN, ORACLE):
            version = again.registry.latest(line)
            assert version is not None
            assert again.retention.prune(version, evaluated=False) == []
        assert [v.id for v in run.books.registry.all() if not v.pruned] == kept
