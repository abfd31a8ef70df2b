"""The checkpoint that the server keeps beside its ledger: who replaces it, and when it stays."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from reconsent.errors import StateError
from server.persistence import StateDirectory
from server.persistence import own_checkpoints as own
from server.persistence.backup import make_backup
from server.persistence.ledger import Ledger
from unlearning.ledger.exports import read_checkpoint_file


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    """With a ledger of three entries."""
    with StateDirectory.open(tmp_path / "state", url="") as opened:
        grown(opened, 2)
        yield opened


def grown(state: StateDirectory, number: int) -> None:
    """Add entries, each in a transaction of its own."""
    for place in range(number):
        Ledger(state).append("round", {"round": place})


def kept(state: StateDirectory) -> int:
    """How many entries the checkpoint is of that was kept."""
    found = own.kept_checkpoint(state, Ledger(state).named_keys())
    return 0 if found is None else found.size


def without_triggers(state: StateDirectory, statement: str) -> None:
    """Change entries, as somebody does who has the database."""
    with state.engine.begin() as connection:
        for name in ("no_update", "no_delete", "in_order"):
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS ledger_{name}")
        connection.execute(text(statement))


def test_only_one_process_compares_and_replaces_it(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While another one is at it the file is left alone; the next entry makes up for it."""
    monkeypatch.setattr(own, "PATIENCE", 0.0)
    with own._writing(state), caplog.at_level(logging.WARNING):
        grown(state, 1)
    assert "could not be kept" in caplog.text
    assert kept(state) == 3
    grown(state, 1)
    assert kept(state) == 5


def test_what_a_killed_process_left_is_removed(state: StateDirectory) -> None:
    """Half a file beside it goes with the next checkpoint."""
    (state.path / f".{own.CHECKPOINT_FILE}.1.0123abcd.part").write_bytes(b"half")
    grown(state, 1)
    assert list(state.path.glob(".*.part")) == []


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff"])
def test_a_file_without_a_checkpoint_heals(
    damage: bytes, state: StateDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    """It shows nothing; a sound ledger replaces it and says so, one that was altered does not."""
    path = own.checkpoint_path(state)
    path.write_bytes(damage)
    without_triggers(state, "UPDATE ledger SET content = content || ' ' WHERE number = 2")
    grown(state, 1)
    assert path.read_bytes() == damage
    assert "Nor is the ledger sound: entry 2" in caplog.text
    without_triggers(state, "UPDATE ledger SET content = rtrim(content) WHERE number = 2")
    grown(state, 1)
    assert "holds no checkpoint. The ledger is sound" in caplog.text
    assert kept(state) == 5


@pytest.mark.parametrize("way", ["cut-off", "another-ledger"])
def test_one_that_the_ledger_does_not_go_on_from_stays(
    way: str, state: StateDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Entries in the place of others do not hide that those are gone; the log says so, and what to do."""
    if way == "cut-off":
        without_triggers(state, "DELETE FROM ledger WHERE number > 1")
        grown(state, 4)
    else:
        with StateDirectory.open(tmp_path / "other", url="") as other:
            (other.path / "signing-key.pem").write_bytes((state.path / "signing-key.pem").read_bytes())
            (other.path / "signing-key.pem").chmod(0o600)
            grown(other, 1)
            own.checkpoint_path(state).write_bytes(own.checkpoint_path(other).read_bytes())
        grown(state, 1)
    before = read_checkpoint_file(own.checkpoint_path(state))
    caplog.clear()
    grown(state, 1)
    assert read_checkpoint_file(own.checkpoint_path(state)) == before
    assert "does not go on from the checkpoint" in caplog.text
    assert "reconsent ledger verify" in caplog.text


def test_a_backup_by_hand_is_told_its_order(postgres: str, tmp_path: Path) -> None:
    """With PostgreSQL the checkpoint is copied before the database, or the copy would look cut off."""
    with (
        StateDirectory.open(tmp_path / "state", url=postgres) as state,
        pytest.raises(StateError, match=rf"copy {own.CHECKPOINT_FILE} .*first, then the database"),
    ):
        make_backup(state, tmp_path / "backup", lambda _: {}, [])
