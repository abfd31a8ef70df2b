"""Backups: whole and of one moment beside a running server, checked when restored."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from deploy.backup import KEY_COPY, back_up, restore
from deploy.residue import purged_copy
from reconsent.config import dump_consortium
from reconsent.errors import StateError
from server.persistence import Ledger, Roster, SiteStatus, StateDirectory
from server.persistence.backup import MANIFEST, STAGING, Manifest
from server.persistence.ledger_entries import STATE_COPIED
from server.persistence.own_checkpoints import CHECKPOINT_FILE
from server.persistence.verification import verify_ledger
from tests.server.hospitals import consortium, opened
from unlearning.key_store import KeyCopy
from unlearning.withdrawal import WithdrawalState

PLAN = consortium(contributions={"history-every": 1})
EXACT = consortium(contributions={"history-every": 1}, unlearning={"method": "retrain", "settings": {}})


def train(path: Path, rounds: int = 2) -> str:
    """Train up to so many rounds; returns the digest of the model."""
    if not (file := path / "consortium.toml").exists():  # A backup may be reading it.
        file.write_text(dump_consortium(PLAN))
    with opened(path, PLAN, simulated=False) as run:
        run.coordinator.meet()
        run.coordinator.initialise()
        run.coordinator.train(rounds)
        return run.books.version("main", "train").digest


def withdraw(path: Path, site: str = "delta") -> str:
    with opened(path, PLAN, simulated=False) as run:
        run.coordinator.meet()
        return run.coordinator.withdraw([site]).id


def move_away(path: Path) -> None:
    (path / "state").rename(path / "lost")


def put_master_back(path: Path) -> None:
    """The master key, of which the operator has a copy elsewhere."""
    (path / "state" / "keys").mkdir(parents=True, exist_ok=True)
    key = path / "state" / "keys" / "master.key"
    key.write_bytes((path / "lost" / "keys" / "master.key").read_bytes())
    key.chmod(0o600)


def test_there_and_back(tmp_path: Path) -> None:
    """A restored state has the same model and contributions, goes on, and ends the same; its ledger holds.

    Shorter than it was, and with the newer checkpoint left behind, it is no cut-off one.
    """
    train(tmp_path)
    back_up(tmp_path / "state", tmp_path / "b" / "1")
    expected = train(tmp_path, 4)
    move_away(tmp_path)
    put_master_back(tmp_path)
    shutil.copy(tmp_path / "lost" / CHECKPOINT_FILE, tmp_path / "state")
    done = restore(tmp_path / "b" / "1", tmp_path / "state", tmp_path / "b" / KEY_COPY)
    assert (done.reapplied, done.unreadable) == ((), "")
    with StateDirectory.open(tmp_path / "state", writable=False) as state:
        found = verify_ledger(state)
        assert (found.problem, found.own.newest) == ("", Ledger(state).checkpoint())
    with StateDirectory.open(tmp_path / "lost", writable=False) as state:
        assert Ledger(state).size() > found.audit.size
    with opened(tmp_path, PLAN, simulated=False) as run:
        assert run.coordinator.cache.problems() == run.books.registry.verify() == []
    assert train(tmp_path, 4) == expected


def test_a_backup_holds_no_key(tmp_path: Path) -> None:
    """Neither the master key nor a wrapped key is in a backup; the copy beside it has the wrapped ones."""
    train(tmp_path)
    made = back_up(tmp_path / "state", tmp_path / "b" / "1")
    copy = KeyCopy.read(tmp_path / "b" / KEY_COPY)
    assert made.key_copy == tmp_path / "b" / KEY_COPY
    assert copy.keys.keys() == {"alpha", "beta", "gamma", "delta"}
    content = b"".join(p.read_bytes() for p in (tmp_path / "b" / "1").rglob("*") if p.is_file())
    for entry in copy.keys.values():
        assert entry["wrapped"].encode() not in content
    master = (tmp_path / "state" / "keys" / "master.key").read_bytes().strip()
    assert master not in content
    assert master not in (tmp_path / "b" / KEY_COPY).read_bytes()


def test_a_backup_that_anybody_can_read_is_told(tmp_path: Path) -> None:
    """Without encryption it holds what no erasure reaches: whoever makes it is told, and the ledger."""
    sealed = []
    for encryption in ("none", "file"):
        plan = consortium(contributions={"encryption": encryption})
        (tmp_path / "consortium.toml").write_text(dump_consortium(plan))
        with opened(tmp_path, plan, simulated=False) as run:
            run.coordinator.meet()
            run.coordinator.initialise()
            run.coordinator.train(1)
        sealed.append(back_up(tmp_path / "state", tmp_path / "b" / encryption).sealed)
    assert sealed == [False, True]
    with StateDirectory.open(tmp_path / "state", writable=False) as state:
        assert [entry.body["sealed"] for entry in Ledger(state).entries([STATE_COPIED])] == sealed


def test_an_erased_site_does_not_come_back(tmp_path: Path) -> None:
    """Restored from before its withdrawal a site is barred, nothing of it readable, its withdrawal due."""
    train(tmp_path)
    back_up(tmp_path / "state", tmp_path / "b" / "1")
    former = withdraw(tmp_path)
    move_away(tmp_path)
    put_master_back(tmp_path)
    done = restore(tmp_path / "b" / "1", tmp_path / "state", tmp_path / "b" / KEY_COPY)
    (again,) = done.reapplied
    assert (again.site, again.former, done.unreadable) == ("delta", former, "")
    assert list((tmp_path / "state" / "contributions").rglob("*delta*")) == []
    with opened(tmp_path, EXACT, simulated=False) as run:
        assert run.books.roster.get("delta").status is SiteStatus.RESTRICTED
        assert run.coordinator.cache.sites() == ["alpha", "beta", "gamma"]
        run.coordinator.meet()
        record = run.coordinator.withdrawing.go_on(run.coordinator.withdrawals.get(again.withdrawal))
        assert record.state is WithdrawalState.COMPLETED
        assert run.books.roster.get("delta").status is SiteStatus.WITHDRAWN
        assert "delta" not in run.books.version("main", "unlearned").lineage


def test_a_restore_that_is_cut_off_lets_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off before erasures are applied again, the state cannot be opened; the same restore again bars."""
    train(tmp_path)
    back_up(tmp_path / "state", tmp_path / "b" / "1")
    withdraw(tmp_path)
    move_away(tmp_path)
    arguments = (tmp_path / "b" / "1", tmp_path / "state", tmp_path / "b" / KEY_COPY)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("deploy.backup.reapply_erasures", killed)
        with pytest.raises(KeyboardInterrupt):
            restore(*arguments)
    for writable in (True, False):
        with pytest.raises(StateError, match="was cut off"):
            StateDirectory.open(tmp_path / "state", url="", writable=writable)
    with pytest.raises(StateError, match="newest copy of the keys"):
        restore(*arguments[:2], None)
    assert [entry.site for entry in restore(*arguments).reapplied] == ["delta"]
    with StateDirectory.open(tmp_path / "state", url="", writable=False) as state:
        assert Roster(state).get("delta").status is SiteStatus.RESTRICTED


def test_keys_are_demanded(tmp_path: Path) -> None:
    """Without keys, or with a copy older than the backup, nothing is restored."""
    train(tmp_path)
    back_up(tmp_path / "state", tmp_path / "b" / "1")
    old = tmp_path / "old.json"
    old.write_bytes((tmp_path / "b" / KEY_COPY).read_bytes())
    withdraw(tmp_path)
    back_up(tmp_path / "state", tmp_path / "b" / "2")
    move_away(tmp_path)
    with pytest.raises(StateError, match="newest copy of the keys"):
        restore(tmp_path / "b" / "1", tmp_path / "state", None)
    with pytest.raises(StateError, match="older than the backup"):
        restore(tmp_path / "b" / "2", tmp_path / "state", old)
    assert not (tmp_path / "state").exists()


def test_keys_that_stayed_are_enough(tmp_path: Path) -> None:
    """If only the rest of the state was lost, its own keys say who was erased."""
    train(tmp_path)
    back_up(tmp_path / "state", tmp_path / "b" / "1")
    withdraw(tmp_path)
    move_away(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "lost" / "keys").rename(tmp_path / "state" / "keys")
    done = restore(tmp_path / "b" / "1", tmp_path / "state", None)
    assert [entry.site for entry in done.reapplied] == ["delta"]
    assert done.unreadable == ""


def test_missing_master_key_is_told_and_mended(tmp_path: Path) -> None:
    """Restored without the master key, the warning names it; put back, contributions can be read."""
    train(tmp_path)
    back_up(tmp_path / "state", tmp_path / "b" / "1")
    move_away(tmp_path)
    done = restore(tmp_path / "b" / "1", tmp_path / "state", tmp_path / "b" / KEY_COPY)
    assert "there is none here" in done.unreadable
    put_master_back(tmp_path)
    with opened(tmp_path, PLAN, simulated=False) as run:
        assert run.coordinator.cache.problems() == []


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "manifest", "outside"])
def test_a_damaged_backup_is_refused(tmp_path: Path, damage: str) -> None:
    """A file that is missing, truncated or altered is named, and nothing is restored."""
    train(tmp_path)
    target = tmp_path / "b" / "1"
    back_up(tmp_path / "state", target)
    move_away(tmp_path)
    file = sorted(target.glob("contributions/alpha/*"))[0]
    word = file.name
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "altered":
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
    elif damage == "manifest":
        (target / MANIFEST).unlink()
        word = MANIFEST
    else:
        manifest = json.loads((target / MANIFEST).read_text())
        manifest["files"]["../b/1/state.sqlite"] = manifest["files"]["state.sqlite"]
        (target / MANIFEST).write_text(json.dumps(manifest))
        word = "outside"
    with pytest.raises(StateError, match=word):
        restore(target, tmp_path / "state", tmp_path / "b" / KEY_COPY)
    assert not (tmp_path / "state").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Neither a state nor a backup is overwritten, and keys do not go into a backup."""
    train(tmp_path)
    back_up(tmp_path / "state", tmp_path / "b" / "1")
    with pytest.raises(StateError, match="not empty"):
        back_up(tmp_path / "state", tmp_path / "b" / "1")
    with pytest.raises(StateError, match="would lie in the backup"):
        back_up(tmp_path / "state", tmp_path / "b" / "2", tmp_path / "b" / "2" / "keys.json")
    with pytest.raises(StateError, match="holds a state already"):
        restore(tmp_path / "b" / "1", tmp_path / "state", tmp_path / "b" / KEY_COPY)


def test_beside_a_running_server(tmp_path: Path) -> None:
    """Backups taken while rounds are committed are each whole: every file the database names is in them."""
    train(tmp_path)
    problems: list[str] = []
    made = threading.Semaphore(0)
    done = threading.Event()

    def work() -> None:
        try:
            with opened(tmp_path, PLAN, simulated=False) as run:
                run.coordinator.meet()
                for rounds in (5, 8, 11):
                    run.coordinator.train(rounds)
                    # However fast the rounds are, a backup ends between those of each two targets.
                    while made.acquire(blocking=False):
                        pass
                    assert made.acquire(timeout=60)
        finally:
            done.set()

    worker = threading.Thread(target=work)
    worker.start()
    taken = 0
    try:
        while not done.is_set():
            back_up(tmp_path / "state", tmp_path / "b" / str(taken))
            taken += 1
            made.release()
    finally:
        worker.join()
    keys = tmp_path / "state" / "keys"
    assert list((tmp_path / "state").glob(f"{STAGING}*")) == []
    rounds = set()
    for number in range(taken):
        copy = tmp_path / "copies" / str(number)
        (copy / "state").mkdir(parents=True)
        (copy / "state" / "keys").symlink_to(keys)
        restore(tmp_path / "b" / str(number), copy / "state", None, consortium=tmp_path / "consortium.toml")
        with opened(copy, PLAN, simulated=False) as run:
            problems += run.coordinator.cache.problems() + run.books.registry.verify()
            rounds.add(run.books.log.last_round("main"))
    assert problems == []
    assert len(rounds) > 1, "they are of different rounds"


def test_cut_off_backup_is_none(tmp_path: Path) -> None:
    """A backup without its manifest is refused; what a cut-off one staged is removed by the next."""
    train(tmp_path)
    left = tmp_path / "state" / f"{STAGING}1"
    left.mkdir()
    (left / "state.sqlite").write_bytes(b"half")
    back_up(tmp_path / "state", tmp_path / "b" / "1")
    assert not left.exists()
    assert Manifest.read(tmp_path / "b" / "1").problems(tmp_path / "b" / "1") == []


def test_messages_never_leave_the_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SuperLink's database is copied and purged where the next backup clears up after one cut off."""
    train(tmp_path)
    state = tmp_path / "state"
    database = state / "deployment" / "superlink" / "state.db"
    database.parent.mkdir(parents=True)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE objects (content BLOB)")
        connection.execute("INSERT INTO objects VALUES ('an update')")
    copies = []

    def watched(source: Path, target: Path) -> None:
        copies.append(target)
        purged_copy(source, target)

    monkeypatch.setattr("deploy.backup.purged_copy", watched)
    back_up(state, tmp_path / "b" / "1")
    (copy,) = copies
    assert copy.relative_to(state).parts[0].startswith(STAGING)
    assert list(state.glob(f"{STAGING}*")) == []
    kept = tmp_path / "b" / "1" / database.relative_to(state)
    assert b"an update" not in kept.read_bytes()
    assert [path.name for path in kept.parent.iterdir()] == ["state.db"]


def test_roster_knows_whom_it_kept(tmp_path: Path) -> None:
    """A site that had withdrawn before the backup is withdrawn after it, and nothing is filed twice."""
    train(tmp_path)
    withdraw(tmp_path)
    back_up(tmp_path / "state", tmp_path / "b" / "1")
    move_away(tmp_path)
    put_master_back(tmp_path)
    done = restore(tmp_path / "b" / "1", tmp_path / "state", tmp_path / "b" / KEY_COPY)
    assert done.reapplied == ()
    with StateDirectory.open(tmp_path / "state", url="", writable=False) as state:
        assert Roster(state).get("delta").status is SiteStatus.WITHDRAWN
