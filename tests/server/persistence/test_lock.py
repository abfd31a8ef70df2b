"""The lock of a state directory: who waits for whom, and how long."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from reconsent.errors import StateError
from server.persistence import lock
from server.persistence.lock import DirectoryLock, is_held


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for seconds."""
    monkeypatch.setattr(lock, "PATIENCE", 0.1)


def test_a_server_is_not_waited_for(tmp_path: Path) -> None:
    """A second server is refused soon, and told who holds the directory."""
    held = DirectoryLock(tmp_path / "lock")
    with pytest.raises(StateError, match="in use by process"):
        DirectoryLock(tmp_path / "lock")
    held.release()
    DirectoryLock(tmp_path / "lock").release()


def test_who_clears_up_is_waited_for(tmp_path: Path) -> None:
    """However long it takes to remove files, a server that starts meanwhile is not refused."""
    clearing = DirectoryLock(tmp_path / "lock", clearing=True)
    released = threading.Event()

    def release() -> None:
        released.set()
        clearing.release()

    later = threading.Timer(5 * lock.PATIENCE, release)
    later.start()
    try:
        DirectoryLock(tmp_path / "lock").release()
        assert released.is_set()
    finally:
        later.join()


def test_who_clears_up_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs is named."""
    monkeypatch.setattr(lock, "PATIENCE_WITH_CLEARING", 0.3)
    clearing = DirectoryLock(tmp_path / "lock", clearing=True)
    with pytest.raises(StateError, match="clears up"):
        DirectoryLock(tmp_path / "lock")
    clearing.release()


def test_what_a_killed_one_wrote_means_nothing(tmp_path: Path) -> None:
    """The file of one that was killed while clearing up keeps nobody waiting once a server holds the lock."""
    (tmp_path / "lock").write_text("process 1 on elsewhere since 2026-01-01, clears up\n")
    assert not is_held(tmp_path / "lock")
    held = DirectoryLock(tmp_path / "lock")
    assert is_held(tmp_path / "lock")
    with pytest.raises(StateError, match="in use by process") as refused:
        DirectoryLock(tmp_path / "lock")
    assert "clears up" not in str(refused.value)
    held.release()
    assert not is_held(tmp_path / "lock")
