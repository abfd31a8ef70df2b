"""The ledger in the database: written with what it records, by several at once, and never changed."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from reconsent.errors import LedgerError, SignatureError
from server.persistence import RunProgress, StateDirectory
from server.persistence.ledger import KEY_FILE, Ledger
from unlearning.ledger.checkpoints import CHECKPOINT_TYPE, follows, read_checkpoint
from unlearning.ledger.merkle import includes, leaf_hash
from unlearning.signing import SigningKey, load_key, verify_envelope


def sound(ledger: Ledger) -> int:
    """Check the whole ledger; returns its size."""
    key = ledger.public_key()
    assert key is not None
    found = ledger.audit([key])
    assert found.fault is None
    return found.size


def test_first_entry_begins_the_ledger(state: StateDirectory) -> None:
    """Before the first entry there is the one that names the ledger and its key, made with mode 600."""
    ledger = Ledger(state)
    assert (ledger.size(), ledger.checkpoint(), ledger.public_key()) == (0, None, None)
    entry = ledger.append("round", {"sites": ["a"], "loss": float("nan")})
    assert entry.number == 2
    begun, second = ledger.entries()
    assert begun.kind == "ledger-begun"
    assert second.body == {"sites": ["a"], "loss": "nan"}
    assert ledger.key_path.stat().st_mode & 0o777 == 0o600
    assert load_key(ledger.key_path).public == ledger.public_key()
    assert sound(ledger) == 2


def test_entry_and_what_it_records_are_one_transaction(state: StateDirectory) -> None:
    """An entry whose transaction fails was never there, and the next one takes its place."""
    ledger, progress = Ledger(state), RunProgress(state)
    ledger.append("first", {})
    with pytest.raises(RuntimeError), state.session() as session:
        progress.put("x", 1, session=session)
        ledger.append("lost", {}, session=session)
        ledger.append("lost", {}, session=session)
        raise RuntimeError
    assert ledger.size() == 2
    with state.session() as session:
        ledger.append("kept", {}, session=session)
        with pytest.raises(RuntimeError), state.session():
            ledger.append("lost-savepoint", {})
            raise RuntimeError
        ledger.append("kept-too", {}, session=session)
    assert [entry.kind for entry in ledger.entries()] == ["ledger-begun", "first", "kept", "kept-too"]
    assert sound(ledger) == 4
    assert progress.get("x") is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET content = 'x' WHERE number = 2",
        "DELETE FROM ledger WHERE number = 2",
        "DELETE FROM ledger",
    ],
)
def test_database_refuses_changes(state: StateDirectory, statement: str) -> None:
    """The database itself changes and deletes no entry."""
    ledger = Ledger(state)
    ledger.append("round", {})
    with pytest.raises(IntegrityError, match="append-only"), state.engine.begin() as connection:
        connection.execute(text(statement))
    assert sound(ledger) == 2


def test_postgresql_refuses_truncation(postgres: str, tmp_path: Path) -> None:
    """PostgreSQL empties the table no more than it deletes a row."""
    with StateDirectory.open(tmp_path, url=postgres) as state:
        Ledger(state).append("round", {})
        with pytest.raises(IntegrityError, match="append-only"), state.engine.begin() as connection:
            connection.execute(text("TRUNCATE ledger"))
        assert sound(Ledger(state)) == 2


def test_sqlite_refuses_replacement(tmp_path: Path) -> None:
    """SQLite's REPLACE, which fires no trigger of deletion, replaces no entry; and none leaves a gap."""
    with StateDirectory.open(tmp_path, url="") as state:
        Ledger(state).append("round", {})
        for number in (2, 4):
            row = f"({number}, 'at', 'kind', 'content', 'leaf', 'root', 'signature')"
            with pytest.raises(IntegrityError, match="append-only"), state.engine.begin() as connection:
                connection.execute(text(f"REPLACE INTO ledger VALUES {row}"))  # noqa: S608
        assert sound(Ledger(state)) == 2


def test_checkpoints_are_signed_and_follow_each_other(state: StateDirectory) -> None:
    """The checkpoint of any size is signed, and each goes on from every former one."""
    ledger = Ledger(state)
    for number in range(9):
        ledger.append("round", {"round": number})
    key = ledger.public_key()
    assert key is not None
    found = [read_checkpoint(ledger.envelope(size), [key]) for size in range(1, 11)]
    assert [checkpoint.size for checkpoint in found] == list(range(1, 11))
    assert found[-1] == ledger.checkpoint() == read_checkpoint(ledger.envelope(), [key])
    for old in found:
        for new in found[old.size - 1 :]:
            proof = ledger.consistency(old.size, new=new.size)
            assert follows(old, new, proof)
            assert not follows(new, old, proof) or old == new
    with pytest.raises(SignatureError):
        read_checkpoint(ledger.envelope(), [SigningKey.generate().public])
    assert verify_envelope(ledger.envelope(), [key], payload_type=CHECKPOINT_TYPE)
    with pytest.raises(LedgerError, match="no entry 11"):
        ledger.envelope(11)
    with pytest.raises(LedgerError, match="ledger of 10"):
        ledger.consistency(11)


def test_entry_has_a_proof_that_it_is_in_a_checkpoint(state: StateDirectory) -> None:
    """With an entry, a checkpoint and a few hashes anybody can see that the entry is in the ledger."""
    ledger = Ledger(state)
    for number in range(6):
        ledger.append("round", {"round": number})
    checkpoint = ledger.checkpoint()
    assert checkpoint is not None
    for entry in ledger.entries():
        proof = [bytes.fromhex(step) for step in ledger.inclusion(entry.number)]
        leaf = leaf_hash(entry.content())
        assert includes(leaf, entry.number - 1, checkpoint.size, proof, bytes.fromhex(checkpoint.root))


def write_many(path: Path, url: str | None, name: str, count: int) -> None:
    with StateDirectory.open(path, url=url, exclusive=False) as state:
        for number in range(count):
            with state.session() as session:
                RunProgress(state).put(f"{name}-{number}", number, session=session)
                Ledger(state).append(name, {"number": number}, session=session)


def test_processes_beside_a_running_server(state: StateDirectory) -> None:
    """Entries of the server's threads and of commands beside it all arrive, in one order that holds."""
    ledger = Ledger(state)
    ledger.append("round", {})
    url = None if state.engine.url.get_backend_name() == "sqlite" else str(state.engine.url)
    spawn = multiprocessing.get_context("spawn")
    commands = [spawn.Process(target=write_many, args=(state.path, url, f"command-{x}", 20)) for x in "ab"]
    threads = [
        threading.Thread(target=lambda x=x: [ledger.append(f"thread-{x}", {}) for _ in range(20)])
        for x in "ab"
    ]
    workers: list[Any] = [*commands, *threads]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [command.exitcode for command in commands] == [0, 0]
    kinds = [entry.kind for entry in ledger.entries()]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "ledger-begun": 1,
        "round": 1,
        **{f"{who}-{x}": 20 for who in ("command", "thread") for x in "ab"},
    }
    assert sound(ledger) == 82


def test_key_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    """A ledger goes on with the key it began with; without it, or with another, nothing is written."""
    with StateDirectory.open(tmp_path, url="") as state:
        Ledger(state).append("round", {})
        (tmp_path / KEY_FILE).rename(tmp_path / "away")
    with StateDirectory.open(tmp_path, url="") as state:
        with pytest.raises(SignatureError, match="cannot be read"):
            Ledger(state).append("round", {})
        key = SigningKey.generate()
        (tmp_path / KEY_FILE).write_bytes(key.pem())
        (tmp_path / KEY_FILE).chmod(0o600)
        with pytest.raises(LedgerError, match="another one"):
            Ledger(state).append("round", {})
        assert Ledger(state).size() == 2


def test_replaced_key(tmp_path: Path) -> None:
    """A new key is named by an entry; whoever trusts the old one alone does not trust what follows."""
    with StateDirectory.open(tmp_path, url="") as state:
        ledger = Ledger(state)
        ledger.append("round", {})
        old = load_key(tmp_path / KEY_FILE).public
        new = ledger.replace_key()
        ledger.append("round", {})
        assert ledger.public_key() == new == load_key(tmp_path / KEY_FILE).public
        assert ledger.audit([old, new]).keys == [old.key_id, new.key_id]
        fault = ledger.audit([old]).fault
        assert fault is not None
        assert fault.number == 3
        assert read_checkpoint(ledger.envelope(2), [old]).size == 2
        assert read_checkpoint(ledger.envelope(), [new]).size == 4


def test_key_replaced_by_a_process_that_died_in_between(tmp_path: Path) -> None:
    """A crash between the entry and the file leaves the new key where the next process finds it."""
    with StateDirectory.open(tmp_path, url="") as state:
        Ledger(state).append("round", {})
        before = (tmp_path / KEY_FILE).read_bytes()
        new = Ledger(state).replace_key()
        (tmp_path / KEY_FILE).rename(tmp_path / f".{KEY_FILE}.next")
        (tmp_path / KEY_FILE).write_bytes(before)
        (tmp_path / KEY_FILE).chmod(0o600)
    with StateDirectory.open(tmp_path, url="") as state:
        Ledger(state).append("round", {})
        assert load_key(tmp_path / KEY_FILE).public == new
        assert Ledger(state).size() == 4


def test_altered_ledger_is_not_gone_on_with(tmp_path: Path) -> None:
    """A process that finds hashes that do not add up writes nothing after them."""
    with StateDirectory.open(tmp_path, url="") as state:
        for _ in range(3):
            Ledger(state).append("round", {})
        with state.engine.begin() as connection:
            connection.execute(text("DROP TRIGGER ledger_no_update"))
            connection.execute(text("UPDATE ledger SET leaf = root WHERE number = 2"))
    with StateDirectory.open(tmp_path, url="") as state:
        with pytest.raises(LedgerError, match="do not add up"):
            Ledger(state).append("round", {})
        assert Ledger(state).size() == 4


@pytest.mark.parametrize("kind", ["", "Round", "a round", "x" * 33])
def test_malformed_kind(state: StateDirectory, kind: str) -> None:
    """A kind is a word of lower-case letters and hyphens; anything else is refused and leaves no trace."""
    Ledger(state).append("round", {})
    with pytest.raises(LedgerError, match="kind"):
        Ledger(state).append(kind, {})
    with pytest.raises(LedgerError, match="canonical"):
        Ledger(state).append("round", {"path": Path()})
    assert sound(Ledger(state)) == 2
