"""A disk that fills up at any moment: a clear error, nothing half-written, and the same model in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconsent.errors import ReconsentError
from server.persistence import ModelRegistry, RoundLog, RunEvents, StateDirectory
from server.service import Task, recording
from tests.server.hospitals import opened
from tests.server.killable import CONFIG, work
from tests.server.test_kill_points import checked
from tests.small_disk import fill, small_disk

SIZE = 8 * 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of eight mebibytes."""
    with small_disk(tmp_path / "disk", SIZE) as mounted:
        yield mounted


def check_whole(path: Path) -> None:
    """What was committed can be read, and nothing else is there."""
    with StateDirectory.open(path / "state", url="", writable=False) as state:
        with state.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        assert ModelRegistry(state).verify() == []
        assert list(state.path.rglob("*.part")) == []


def problem_of(path: Path) -> str:
    """Why the state cannot be looked into, if it cannot."""
    try:
        StateDirectory.open(path / "state", url="", writable=False).close()
    except ReconsentError as error:
        return str(error)
    return ""


def test_job_on_a_disk_that_is_full_again_and_again(disk: Path, tmp_path: Path) -> None:
    """With a little more space at each attempt the job fails at ever later points, in words, and resumes."""
    path, messages, began = disk / "run", [], False
    for leaving in range(0, 2**20, 16 * 1024):
        fill(disk, leaving)
        try:
            work(path)
        except ReconsentError as error:
            messages.append(str(error))
            (disk / "filler").unlink()
            began = began or "Start the server" not in problem_of(path)
            if began:
                check_whole(path)
        else:
            break
    # Which of the files of a round is the first without room depends on the sizes that SQLite gives its own.
    hit = {text.split()[1] for text in messages}
    assert "database" in hit and hit & {"contribution", "model"}, "the disk was full at several places"
    for message in messages:
        words = ("space", "full", "cannot be opened", "reports an error")
        assert any(word in message for word in words), message
    work(tmp_path / "undisturbed")
    assert checked(path, straight=False) == checked(tmp_path / "undisturbed")


def test_error_of_a_full_disk_reaches_whoever_started_the_run(disk: Path) -> None:
    """That the end of a run cannot be written down either does not hide what ended it."""
    with opened(disk, CONFIG, simulated=False) as run:
        state = run.coordinator.state
        with pytest.raises(ReconsentError, match="power"), recording(state, "1", Task("resume")):
            fill(disk, 0)
            raise ReconsentError("The power is out.")
        (disk / "filler").unlink()
        assert RoundLog(state).lines() == []
        assert "failed" not in [event.kind for event in RunEvents(state).after(0)]
