"""A deployed consortium whose database is a PostgreSQL server: the same rounds, models and guarantees."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import Message

from reconsent.errors import StateError
from server.bookkeeping import MAIN
from server.persistence import RunEvents, SiteStatus, StateDirectory, Withdrawals
from server.service import Service, Task, recording
from tests.server.hospitals import opened
from tests.server.killable import CONFIG, Killable, started, work
from tests.server.test_hostile_sites import Spoiled, novel, with_metrics
from unlearning.withdrawal import WithdrawalState


@pytest.fixture(scope="module")
def server() -> Iterator[Killable]:
    with started() as process:
        yield process


def outcome(path: Path, url: str) -> tuple[object, ...]:
    """What a finished job left: models, rounds and withdrawal."""
    with opened(path, CONFIG, simulated=False, url=url) as run:
        (record,) = run.coordinator.withdrawals.all()
        assert record.state is WithdrawalState.COMPLETED
        assert run.books.roster.get("delta").status is SiteStatus.WITHDRAWN
        assert run.books.registry.verify() == run.coordinator.cache.problems() == []
        assert list(run.coordinator.state.path.rglob("*delta*")) == []
        models = [(v.kind, v.round, v.digest, v.status) for v in run.books.registry.all()]
        return models, [(r.kind, r.round) for r in run.books.log.all(MAIN)]


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    path = tmp_path_factory.mktemp("sqlite")
    work(path)
    return outcome(path, "")


def test_the_same_as_on_sqlite(on_sqlite: tuple[object, ...], postgres: str, tmp_path: Path) -> None:
    """Training, withdrawal, unlearning and more training end with the very models they end with on SQLite."""
    work(tmp_path / "server", postgres)
    assert outcome(tmp_path / "server", postgres) == on_sqlite
    assert not list((tmp_path / "server").rglob("*.sqlite"))


@pytest.mark.parametrize("point", ["round-before-commit:2", "erasure-before-commit"])
def test_killed_on_postgres(
    point: str, server: Killable, on_sqlite: tuple[object, ...], postgres: str, tmp_path: Path
) -> None:
    """Killed in the middle of a transaction, the next process ends the job with the same models."""
    assert server.run(tmp_path / "killed", point, url=postgres) == -signal.SIGKILL
    assert server.run(tmp_path / "killed", url=postgres) == 0
    assert outcome(tmp_path / "killed", postgres) == on_sqlite


def test_filed_while_a_round_runs(postgres: str, tmp_path: Path) -> None:
    """A withdrawal filed by another connection in a round waits for nobody, and bars the site at once."""
    filed: list[bool] = []

    def spoil(reply: Message) -> Message:
        def file() -> None:
            with StateDirectory.open(tmp_path / "state", url=postgres, exclusive=False) as state:
                Withdrawals(state).file(["delta"], reason="asked", requested_by="officer", restrict=True)

        if not filed:
            filed.append(True)
            thread = threading.Thread(target=file)
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
        return reply

    with opened(tmp_path, CONFIG, Spoiled(spoil), simulated=False, url=postgres) as run:
        Service(run.coordinator).carry_out(Task("train", 3))
        assert run.books.log.all(MAIN)[0].sites["delta"].outcome == "withdrawn"
        assert run.books.log.count(MAIN, "train") == 3
        assert run.books.roster.get("delta").status is SiteStatus.WITHDRAWN


def test_what_hostile_sites_say_can_be_stored(postgres: str, tmp_path: Path) -> None:
    """Zero bytes, novels, infinities and enormous numbers, which PostgreSQL refuses, do not end a run."""
    nodes = Spoiled(novel)
    with opened(tmp_path, CONFIG, nodes, simulated=False, url=postgres) as run:
        state = run.coordinator.state
        with recording(state, "1", Task("train", 1)):
            Service(run.coordinator).carry_out(Task("train", 1))
            for lie in ({"train_loss": float("nan")}, {"seconds": 1e300, "train_loss": float("inf")}):
                nodes._spoil = with_metrics(**lie)
                Service(run.coordinator).carry_out(Task("train", 1))
        assert run.books.log.count(MAIN) == 3
        assert any("a b x" in event.text for event in RunEvents(state).after(0))


def test_server_that_is_not_there(tmp_path: Path) -> None:
    """Without a server behind the URL the error names it, without its password, and what to check."""
    pytest.importorskip("psycopg")
    with pytest.raises(StateError, match=r"127\.0\.0\.1") as caught:
        StateDirectory.open(tmp_path / "state", url="postgresql+psycopg://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)
    assert "reachable" in caught.value.remedy
