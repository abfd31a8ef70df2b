"""Killed at every point where it matters, and at any other moment, a server ends with the same model."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconsent.faults import POINTS
from server.bookkeeping import MAIN
from server.persistence import ModelRegistry, RoundLog, StateDirectory, Withdrawals
from server.safekeeping import cache_policy
from tests.server.at_rest import everything, keys_of
from tests.server.killable import CONFIG, Killable, started
from unlearning.contributions import ContributionCache
from unlearning.key_store import KeyStore
from unlearning.site_keys import KeyPolicy, SiteKeys
from unlearning.withdrawal import WithdrawalState

ONCE = {
    "withdrawal-restricted",
    "unlearning-begun",
    "unlearning-finished",
    "erasure-before-commit",
    "erasure-committed",
    "keys-destroyed",
    "withdrawal-completed",
}
"""Points that one withdrawal reaches once; the others are killed at the second time."""


@pytest.fixture(scope="module")
def server() -> Iterator[Killable]:
    with started() as process:
        yield process


@pytest.fixture(scope="module")
def undisturbed(server: Killable, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    path = tmp_path_factory.mktemp("undisturbed")
    assert server.run(path) == 0
    return checked(path)


def checked(path: Path, *, straight: bool = True) -> tuple[str, ...]:
    """Look into everything a finished job left; returns the digests of all models that were not pruned."""
    # Not by a coordinator: that would sweep away what is to be found.
    with StateDirectory.open(path / "state", url="", writable=False) as state:
        registry, register = ModelRegistry(state), Withdrawals(state)
        keys = SiteKeys(state.keys_dir, KeyPolicy())
        policy = cache_policy(CONFIG)
        cache = ContributionCache(state.contributions_dir, state.reading, policy, line=MAIN, keys=keys)
        with state.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        (record,) = register.all()
        assert record.state is WithdrawalState.COMPLETED
        steps = len(register.events(record.id))
        assert steps == 6 if straight else steps >= 6, "each step once, unless it failed"
        assert [(r.kind, r.round) for r in RoundLog(state).all(MAIN)] == [
            *(("train", t) for t in (1, 2)),
            *(("retain", t) for t in (3, 4)),
            ("train", 5),
        ]
        assert registry.verify() == []
        assert cache.problems() == []
        assert cache.sites() == ["alpha", "beta", "gamma"]
        assert keys.sites() == ["alpha", "beta", "gamma"]
        (erased,) = KeyStore(state.keys_dir, KeyPolicy()).erased()
        assert (erased.site, erased.withdrawal) == ("delta", record.id)
        assert list(state.path.rglob("*delta*")) == []
        assert list(state.path.rglob("*.safetensors")) == list(state.models_dir.glob("*.safetensors"))
        assert list(state.path.rglob("*.part")) == []
        for empty in ("spool", "unlearning"):
            assert list((state.path / empty).glob("*")) == []
        named = {v.filename for v in registry.all() if not v.pruned}
        assert {file.name for file in state.models_dir.iterdir()} == named
        return tuple(v.digest for v in registry.all() if not v.pruned)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point(
    point: str, server: Killable, undisturbed: tuple[str, ...], tmp_path: Path
) -> None:
    """Killed at this point, the next process ends the job with the same models, nothing left over.

    Nor can what was contributed be read in between, or a key of the withdrawn site be found in the end.
    """
    at = point if point in ONCE else f"{point}:2"
    assert server.run(tmp_path, at) == -signal.SIGKILL
    state = tmp_path / "state"
    secrets = keys_of(state, "delta") if (state / "keys" / "sites" / "delta.key").exists() else []
    # The first round is under way at the first of them; after the last two the key is gone.
    assert bool(secrets) == (point not in ("update-kept", "keys-destroyed", "withdrawal-completed"))
    assert not secrets or secrets[0] not in everything(state)
    for part in ("contributions", "spool", "unlearning"):
        for path in (state / part).rglob("*"):
            assert path.is_dir() or path.read_bytes().startswith(b"RCNSEAL1"), path
    assert server.run(tmp_path) == 0
    assert checked(tmp_path) == undisturbed
    content = everything(state)
    assert not any(secret in content for secret in secrets)


def test_killed_at_any_time(server: Killable, undisturbed: tuple[str, ...], tmp_path: Path) -> None:
    """Killed again and again after random times, the job is done in the end, with the same models."""
    random_ = random.Random(1)
    ends = [server.run(tmp_path, milliseconds=random_.uniform(20, 700)) for _ in range(10)]
    assert set(ends) <= {-signal.SIGKILL, 0}
    assert server.run(tmp_path) == 0
    assert checked(tmp_path) == undisturbed


def test_killed_at_every_point_in_turn(
    server: Killable, undisturbed: tuple[str, ...], tmp_path: Path
) -> None:
    """One job killed at one point after the other, as far as it reaches them, ends with the same models."""
    for point in POINTS:
        assert server.run(tmp_path, point) in (-signal.SIGKILL, 0)
    assert server.run(tmp_path) == 0
    assert checked(tmp_path) == undisturbed
