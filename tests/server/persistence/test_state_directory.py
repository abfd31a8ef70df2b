"""The state directory: one server at a time, transactions, and damage said in words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from reconsent.environment import state_path
from reconsent.errors import StateError
from server.persistence import Roster, RunProgress, StateDirectory, Withdrawals
from server.persistence.state import DATABASE


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a state directory may be made; a name that must be quoted in a URL."""
    return tmp_path / "état 100%?&#"


def test_what_was_written_is_there_after_reopening(home: Path) -> None:
    """A value survives closing; the directory is made for its owner only."""
    with StateDirectory.open(home) as state:
        RunProgress(state).put("round", 3)
        assert state.models_dir.is_dir()
        assert state.contributions_dir.is_dir()
    with StateDirectory.open(home) as state:
        assert RunProgress(state).get("round") == 3
    assert home.stat().st_mode & 0o077 == 0


def test_commits_are_durable(home: Path) -> None:
    """Every connection writes ahead, flushes at each commit, checks foreign keys, overwrites deletions."""
    with StateDirectory.open(home) as state, state.session() as session:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        values = [session.execute(text(f"PRAGMA {name}")).scalar() for name in pragmas]
        assert values == ["wal", 2, 1, 1]


def test_a_second_server_is_refused_with_the_first_ones_pid(home: Path) -> None:
    """The second is refused, in this and in another process, and may come when the first is gone."""
    with StateDirectory.open(home) as state:
        with pytest.raises(StateError, match=f"in use by process {os.getpid()} .*another state directory"):
            StateDirectory.open(home)
        RunProgress(state).put("still", "working")
    with StateDirectory.open(home) as state:
        assert RunProgress(state).get("still") == "working"


def test_who_holds_the_lock_for_a_moment_keeps_no_server_out(home: Path) -> None:
    """A server that starts while another process looks, or clears up, waits for it."""
    held = StateDirectory.open(home)
    soon = threading.Timer(0.3, held.close)
    soon.start()
    StateDirectory.open(home).close()
    soon.join()


HOLDER = """
import os, sys, time
from pathlib import Path
from server.persistence import StateDirectory

held = StateDirectory.open(Path(sys.argv[1]))
worker = os.fork()
if worker:
    print(worker, flush=True)
time.sleep(60)
"""


def test_the_lock_dies_with_its_holder(home: Path) -> None:
    """A killed server locks nobody out, though a process it had forked is still alive."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", HOLDER, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as server:
        assert server.stdout
        worker = int(server.stdout.readline())
        try:
            with pytest.raises(StateError, match=f"in use by process {server.pid} "):
                StateDirectory.open(home)
            server.kill()
            server.wait()
            deadline = time.monotonic() + 10
            while True:
                try:
                    StateDirectory.open(home).close()
                    break
                except StateError:  # the worker closes the lock that it inherited when it comes to run
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            os.kill(worker, 0)
        finally:
            server.kill()
            os.kill(worker, signal.SIGKILL)


def test_readers_look_while_a_server_works(home: Path) -> None:
    """A reader sees what is committed, not what is not, waits for nothing, and cannot write."""
    with StateDirectory.open(home) as server, StateDirectory.open(home, writable=False) as reader:
        progress = RunProgress(server)
        progress.put("round", 1)
        with server.session() as session:
            progress.put("round", 2, session=session)
            session.flush()
            began = time.monotonic()
            assert RunProgress(reader).get("round") == 1
            assert time.monotonic() - began < 2
        assert RunProgress(reader).get("round") == 2
        with pytest.raises(StateError, match="opened for reading"):
            RunProgress(reader).put("round", 3)


def test_a_withdrawal_can_be_filed_beside_a_server(home: Path) -> None:
    """A short transaction beside the server is seen by it, and stops a round that is being committed."""
    with StateDirectory.open(home) as server:
        roster = Roster(server)
        for node, site in enumerate(("north", "south")):
            roster.enrol(site, node, "knee", 10, round=1)
        with StateDirectory.open(home, exclusive=False) as office:
            Withdrawals(office).file(["north"], reason="consent", requested_by="officer", restrict=True)
        assert [entry.site for entry in roster.active()] == ["south"]
        assert len(Withdrawals(server).open()) == 1


@pytest.mark.parametrize("mode", [{"writable": False}, {"exclusive": False}])
def test_only_a_server_makes_a_state_directory(home: Path, mode: dict[str, bool]) -> None:
    """Looking at, or filing into, what is not there is an error and makes nothing."""
    with pytest.raises(StateError, match="no state directory"):
        StateDirectory.open(home, **mode)
    assert not home.exists()
    home.mkdir()
    with pytest.raises(StateError, match="no database"):
        StateDirectory.open(home, **mode)
    assert list(home.iterdir()) == []


def test_a_transaction_is_whole_or_absent(home: Path) -> None:
    """An error undoes everything of its transaction, in every table."""
    with StateDirectory.open(home) as state:
        roster, progress = Roster(state), RunProgress(state)
        with pytest.raises(ZeroDivisionError), state.session() as session:
            roster.enrol("north", 1, "knee", 10, round=1, session=session)
            progress.put("round", 1, session=session)
            assert roster.all(session=session)
            raise ZeroDivisionError
        assert roster.all() == []
        assert progress.keys() == []


def test_a_transaction_inside_another_is_a_savepoint(home: Path) -> None:
    """Called without a session inside a transaction, a write neither waits for it nor outlives it."""
    with StateDirectory.open(home) as state:
        progress = RunProgress(state)
        with pytest.raises(ZeroDivisionError), state.session():
            progress.put("lost", 1)
            assert progress.get("lost") == 1
            raise ZeroDivisionError
        with state.session():
            progress.put("kept", 1)
            with pytest.raises(ZeroDivisionError), state.session():
                progress.put("kept", 2)
                raise ZeroDivisionError
        assert progress.keys() == ["kept"]
        assert progress.get("kept") == 1


def test_threads_write_one_after_the_other(home: Path) -> None:
    """Counting up in several threads loses no count, though each reads before it writes."""
    with StateDirectory.open(home) as state:
        progress = RunProgress(state)

        def count() -> None:
            for _ in range(5):
                with state.session() as session:
                    now = progress.get("n", 0, session=session)
                    progress.put("n", now + 1, session=session)

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert progress.get("n") == 20


def test_files_go_after_the_commit_only(home: Path) -> None:
    """An action put off until the commit happens after it, and never if it is rolled back."""
    done: list[str] = []
    with StateDirectory.open(home) as state:
        with pytest.raises(ZeroDivisionError), state.session() as session:
            state.after_commit(session, lambda: done.append("rolled back"))
            raise ZeroDivisionError
        with state.session() as session:
            state.after_commit(session, lambda: done.append("committed"))
            assert done == []
    assert done == ["committed"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: b"not a database, but as long as one" + whole[34:], "not an SQLite database"),
        (lambda whole: whole[:4096] + b"\xff" * 8192 + whole[12288:], "damaged"),
        (lambda whole: whole[: len(whole) // 2], "damaged"),
    ],
    ids=["overwritten", "garbled", "truncated"],
)
def test_a_damaged_database_is_named(home: Path, damage: object, message: str) -> None:
    """Overwritten, garbled or truncated: the file is named, and it is left as it is found."""
    with StateDirectory.open(home) as state:
        for number in range(50):
            RunProgress(state).put(f"key-{number}", "x" * 500)
    database = home / DATABASE
    broken = damage(database.read_bytes())  # type: ignore[operator]
    database.write_bytes(broken)
    for writable in (True, False):
        with pytest.raises(StateError, match=message) as caught:
            StateDirectory.open(home, writable=writable)
        assert str(database) in caught.value.problem
        assert "backup" in caught.value.remedy
    assert database.read_bytes() == broken
    database.unlink()
    StateDirectory.open(home).close()


def test_a_full_disk_is_said_and_loses_nothing(home: Path) -> None:
    """When SQLite cannot grow its file, what was committed stays and the next write works again."""
    with StateDirectory.open(home) as state:
        progress = RunProgress(state)
        progress.put("before", 1)
        with pytest.raises(StateError, match=r"the disk is full.*Free space"), state.session() as session:
            session.execute(text("PRAGMA max_page_count = 1"))
            progress.put("large", "x" * 100_000, session=session)
        assert progress.keys() == ["before"]
        state.engine.dispose()
        progress.put("after", 1)
        assert progress.keys() == ["after", "before"]


def test_a_path_that_cannot_be_is_said(tmp_path: Path) -> None:
    """A file in the way, and a directory that nobody may write to, are named with the system's reason."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError, match="file/state cannot be used: Not a directory"):
        StateDirectory.open(tmp_path / "file" / "state")
    with pytest.raises(StateError, match="/proc/state cannot be used"):
        StateDirectory.open(Path("/proc/state"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
@pytest.mark.parametrize(("part", "mode"), [("", 0o500), (DATABASE, 0o400), ("", 0o000)])
def test_missing_permissions_are_said(home: Path, part: str, mode: int) -> None:
    """A directory or a database that may not be written to is named at once, not at the first commit."""
    StateDirectory.open(home).close()
    before = (home / part).stat().st_mode
    (home / part).chmod(mode)
    try:
        with pytest.raises(StateError, match=r"Permission denied|may not be written|cannot be opened"):
            StateDirectory.open(home)
    finally:
        (home / part).chmod(before)
    StateDirectory.open(home).close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("nonsense", "The database URL is not one"),
        ("oracle9000://scott:tiger@host/db", "cannot be used"),
    ],
)
def test_useless_urls_are_refused(home: Path, url: str, message: str) -> None:
    """A database in memory or of an unknown kind is refused, without showing a password."""
    with pytest.raises(StateError, match=message) as caught:
        StateDirectory.open(home, url=url)
    assert "tiger" not in str(caught.value)


def test_the_database_may_be_elsewhere(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's URL puts the database elsewhere; an argument goes before it."""
    elsewhere = tmp_path / "elsewhere.sqlite"
    monkeypatch.setenv("RECONSENT_DATABASE_URL", f"sqlite:///{elsewhere}")
    with StateDirectory.open(home) as state:
        assert state.database == str(elsewhere)
    assert not (home / DATABASE).exists()
    with StateDirectory.open(home, url="") as state:
        assert state.database == str(home / DATABASE)


def test_the_default_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An argument goes before the environment, the environment before the default."""
    monkeypatch.chdir(tmp_path)
    assert state_path() == tmp_path / "reconsent-state"
    monkeypatch.setenv("RECONSENT_STATE", "/srv/reconsent")
    assert state_path("") == Path("/srv/reconsent")
    assert state_path("here") == tmp_path / "here"
