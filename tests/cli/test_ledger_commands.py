"""``reconsent ledger``: every way to tamper with the file is found, and its first entry named."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from server.persistence import Enrolments, Ledger, Roster, StateDirectory, Withdrawals
from server.persistence.ledger import KEY_FILE
from server.persistence.own_checkpoints import CHECKPOINT_FILE
from unlearning.ledger.checkpoints import Checkpoint
from unlearning.ledger.entries import Entry
from unlearning.ledger.merkle import MerkleTree, leaf_hash
from unlearning.signing import SigningKey, load_key

SIZE = 11


def run(arguments: list[str]) -> None:
    """A command that must succeed."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state in which a little has happened; with checkpoints of 5 and of all entries."""
    path = tmp_path_factory.mktemp("ledger") / "state"
    with StateDirectory.open(path, url="") as state:
        roster = Roster(state)
        for number, site in enumerate("abc"):
            roster.enrol(site, number + 1, "brain", 10, round=0)
            Enrolments(state).enrol(site, hashlib.sha256(site.encode()).hexdigest())
            if number == 1:
                run(["ledger", "export", "--state", str(path), "--checkpoint", str(path.parent / "early")])
        Withdrawals(state).file(["c"], reason="private words", requested_by="Dr A. Person", restrict=True)
        Enrolments(state).revoke("c", "withdrawn")
        Ledger(state).append("round", {"round": 1})
    everything = ("export", str(path.parent / "all.jsonl"), "--checkpoint", str(path.parent / "late"))
    run(["ledger", *everything, "--state", str(path)])
    run(["ledger", "key", "--state", str(path), "--out", str(path.parent / "key.pem")])
    return path


@pytest.fixture
def state(untouched: Path, tmp_path: Path) -> Path:
    """A copy that may be tampered with."""
    return Path(shutil.copytree(untouched, tmp_path / "state"))


def verified(capsys: pytest.CaptureFixture[str], *options: object) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON of ``reconsent ledger verify``."""
    capsys.readouterr()
    try:
        main(["ledger", "verify", "--json", *map(str, options)])
    except SystemExit as ended:
        status = int(str(ended.code or 0))
    output = capsys.readouterr().out
    return status, json.loads(output) if output else {}


def tamper(state: Path, *statements: str) -> None:
    """Change the raw file, as somebody would who has it: without the triggers."""
    with closing(sqlite3.connect(state / "state.sqlite")) as database, database:
        for name in ("no_update", "no_delete", "in_order"):
            database.execute(f"DROP TRIGGER ledger_{name}")
        for statement in statements:
            database.execute(statement)


def rewritten(state: Path, key: SigningKey, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change entries, then write every hash and signature anew with ``key``, as a careful forger would."""
    with closing(sqlite3.connect(state / "state.sqlite")) as database, database:
        for name in ("no_update", "no_delete", "in_order"):
            database.execute(f"DROP TRIGGER ledger_{name}")
        contents = [
            json.loads(row[0]) for row in database.execute("SELECT content FROM ledger ORDER BY number")
        ]
        change(contents)
        database.execute("DELETE FROM ledger")
        tree = MerkleTree()
        for number, fields in enumerate(contents, start=1):
            entry = Entry(number, fields["at"], fields["kind"], fields["body"])
            leaf = leaf_hash(entry.content())
            tree.append(leaf)
            root = tree.root().hex()
            checkpoint = Checkpoint(contents[0]["body"]["ledger"], number, root, entry.at)
            values = (number, entry.at, entry.kind, entry.content().decode(), leaf.hex(), root)
            database.execute(
                "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, checkpoint.signature(key))
            )


def test_untouched_ledger_holds(untouched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is found where nothing was done, with checkpoints and without, in the state and in the file."""
    kept = ("--checkpoint", untouched.parent / "early", "--checkpoint", untouched.parent / "late")
    for where in (("--state", untouched), ("--file", untouched.parent / "all.jsonl")):
        for key in ((), ("--key", untouched.parent / "key.pem")):
            status, found = verified(capsys, *where, *kept, *key)
            # In the state the server's own checkpoint is compared as well.
            assert (status, found["sound"], found["size"]) == (0, True, SIZE)
            assert found["compared"] == (3 if "--state" in where else 2)
            assert found["keys"] == [load_key(untouched / KEY_FILE).key_id]
            assert verified(capsys, *where)[0] == 0


def test_entries_hold_nothing_that_may_have_to_be_erased(untouched: Path) -> None:
    """Persons and free text of a withdrawal are in no entry."""
    content = (untouched.parent / "all.jsonl").read_text()
    assert "withdrawal" in content
    assert "Person" not in content
    assert "private" not in content


TAMPERING = {
    "content": (4, ["UPDATE ledger SET content = replace(content, 'brain', 'knees') WHERE number = 4"]),
    "content-not-json": (4, ["UPDATE ledger SET content = 'x' WHERE number = 4"]),
    "content-spaced": (4, ["UPDATE ledger SET content = content || ' ' WHERE number = 4"]),
    "kind": (3, ["UPDATE ledger SET kind = 'round' WHERE number = 3"]),
    "time": (3, ["UPDATE ledger SET at = '2020-01-01T00:00:00.000000+00:00' WHERE number = 3"]),
    "leaf": (6, ["UPDATE ledger SET leaf = root WHERE number = 6"]),
    "root": (6, ["UPDATE ledger SET root = leaf WHERE number = 6"]),
    "signature": (6, ["UPDATE ledger SET signature = (SELECT signature FROM ledger WHERE number = 5) "
                      "WHERE number = 6"]),
    "dropped": (5, ["DELETE FROM ledger WHERE number = 5"]),
    "dropped-first": (1, ["DELETE FROM ledger WHERE number = 1"]),
    "dropped-and-closed-up": (
        5,
        ["DELETE FROM ledger WHERE number = 5", "UPDATE ledger SET number = -number + 1 WHERE number > 5",
         "UPDATE ledger SET number = -number WHERE number < 0"],
    ),
    "swapped": (
        4,
        ["UPDATE ledger SET number = -4 WHERE number = 7", "UPDATE ledger SET number = 7 WHERE number = 4",
         "UPDATE ledger SET number = 4 WHERE number = -4"],
    ),
    "repeated": (
        12,
        ["INSERT INTO ledger SELECT 12, at, kind, content, leaf, root, signature FROM ledger "
         "WHERE number = 4"],
    ),
    "several": (2, ["UPDATE ledger SET content = 'x' WHERE number IN (9, 2, 11)"]),
}  # fmt: skip


@pytest.mark.parametrize("way", TAMPERING)
def test_tampering_is_found_and_its_first_entry_named(
    way: str, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is changed in the raw file, the first entry that is not as it was is named; status 1."""
    number, statements = TAMPERING[way]
    tamper(state, *statements)
    status, found = verified(capsys, "--state", state)
    assert (status, found["sound"], found["fault"]["number"]) == (1, False, number)
    assert found["size"] == number - 1
    with pytest.raises(SystemExit) as main_output:
        main(["ledger", "verify", "--state", str(state)])
    assert main_output.value.code == 1
    assert f"Entry {number}:" in capsys.readouterr().err


def test_hashes_written_anew_without_the_key(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who alters an entry and computes all hashes again, but cannot sign, is found at that entry."""
    rewritten(state, SigningKey.generate(), lambda contents: contents[3]["body"].update(examples=11))
    status, found = verified(capsys, "--state", state)
    assert (status, found["fault"]["number"]) == (1, 1), "the first signature is another key's already"
    key = load_key(state / KEY_FILE)
    shutil.copy(state / "state.sqlite", state / "forged.sqlite")
    with closing(sqlite3.connect(state / "state.sqlite")) as database, database:
        for number in range(1, 4):
            row = database.execute(
                "SELECT content, root, at FROM ledger WHERE number = ?", (number,)
            ).fetchone()
            ledger = json.loads(database.execute("SELECT content FROM ledger").fetchone()[0])["body"][
                "ledger"
            ]
            signature = Checkpoint(ledger, number, row[1], row[2]).signature(key)
            database.execute("UPDATE ledger SET signature = ? WHERE number = ?", (signature, number))
    status, found = verified(capsys, "--state", state)
    assert (status, found["fault"]["number"]) == (1, 4)


def forget(state: Path) -> None:
    """Take away what the server keeps beside its ledger, as somebody does who can write everywhere."""
    (state / CHECKPOINT_FILE).unlink()


def test_a_cut_off_end_is_found_by_the_server_itself(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first entry that is missing is named, also after others took the place of those that are gone."""
    tamper(state, f"DELETE FROM ledger WHERE number > {SIZE - 2}")  # noqa: S608
    status, found = verified(capsys, "--state", state)
    assert (status, found["fault"]["number"], found["own"]["newest"]["size"]) == (1, SIZE - 1, SIZE)
    with StateDirectory.open(state, url="") as opened:
        for number in range(4):
            Ledger(opened).append("round", {"round": number})
    status, found = verified(capsys, "--state", state)
    assert (status, found["fault"]["number"]) == (1, 1)
    assert f"entries 1 to {SIZE}" in found["fault"]["problem"], "what was kept stays: it shows what was done"


def test_an_emptied_ledger_is_found(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a ledger that names no key any more, what was kept is believed."""
    tamper(state, "DELETE FROM ledger")
    status, found = verified(capsys, "--state", state)
    assert (status, found["fault"]["number"]) == (1, 1)
    assert f"entries 1 to {SIZE} are missing" in found["fault"]["problem"]


def test_what_a_site_confirmed_shows_a_cut_off_end(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the server's own file too; what no site can have seen is not kept."""
    with StateDirectory.open(state, url="") as opened:
        Ledger(opened).note_witnessed({"a": SIZE - 1, "b": SIZE + 1, "c": 0})
    forget(state)
    status, found = verified(capsys, "--state", state)
    assert (status, found["compared"], list(found["own"]["witnessed"])) == (0, 1, ["a"])
    with pytest.raises(SystemExit):
        main(["ledger", "verify", "--state", str(state)])
    assert "The server's own checkpoint is gone" in capsys.readouterr().out
    tamper(state, f"DELETE FROM ledger WHERE number > {SIZE - 2}")  # noqa: S608
    status, found = verified(capsys, "--state", state)
    assert (status, found["fault"]["number"]) == (1, SIZE - 1)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]"])
def test_a_damaged_checkpoint_is_said(damage: bytes, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no verification that could have found nothing."""
    (state / CHECKPOINT_FILE).write_bytes(damage)
    with pytest.raises(SystemExit) as ended:
        main(["ledger", "verify", "--state", str(state)])
    assert ended.value.code == 1
    assert CHECKPOINT_FILE in capsys.readouterr().err


def test_a_step_that_was_altered_is_named(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ledger's entries being untouched, the first that the register contradicts is named; status 1."""
    assert verified(capsys, "--state", state)[1]["register"]["compared"] == 2
    with closing(sqlite3.connect(state / "state.sqlite")) as database, database:
        database.execute("DROP TRIGGER withdrawal_events_no_update")
        database.execute("UPDATE withdrawal_events SET note = 'other words' WHERE new_state = 'received'")
    status, found = verified(capsys, "--state", state)
    assert (status, found["sound"], found["fault"]) == (1, False, None)
    with pytest.raises(SystemExit):
        main(["ledger", "verify", "--state", str(state)])
    printed = capsys.readouterr()
    assert f"Entry {found['register']['entry']}: the step to 'received' of withdrawal" in printed.err
    assert "Every entry is as it was written" not in printed.out


@pytest.mark.parametrize("kept", ["early", "late"])
def test_end_cut_off(kept: str, untouched: Path, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who can write everywhere here is found by a checkpoint from elsewhere: the first missing is named."""
    forget(state)
    tamper(state, f"DELETE FROM ledger WHERE number > {SIZE - 2}", "DELETE FROM enrolments")  # noqa: S608
    assert verified(capsys, "--state", state)[0] == 0
    status, found = verified(capsys, "--state", state, "--checkpoint", untouched.parent / kept)
    if kept == "early":
        assert status == 0
    else:
        assert (status, found["fault"]["number"]) == (1, SIZE - 1)


def test_all_written_anew_with_the_key(
    untouched: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who has the key can rewrite everything; the checkpoints of others tell between which two of them."""
    key = load_key(state / KEY_FILE)
    rewritten(state, key, lambda contents: contents[8]["body"].update(site="b"))
    assert verified(capsys, "--state", state)[0] == 1
    forget(state)
    assert verified(capsys, "--state", state)[1]["fault"] is None
    early, late = (("--checkpoint", untouched.parent / name) for name in ("early", "late"))
    assert verified(capsys, "--state", state, *early)[1]["fault"] is None
    status, found = verified(capsys, "--state", state, *early, *late)
    assert (status, found["fault"]["number"]) == (1, 6)
    assert f"6 to {SIZE}" in found["fault"]["problem"]


def test_all_written_anew_with_another_key(
    untouched: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ledger made up with a new key holds in itself, and neither for a checkpoint nor for the old key."""
    forger = SigningKey.generate()
    rewritten(state, forger, lambda contents: contents[0]["body"].update(key=forger.public.raw.hex()))
    status, found = verified(capsys, "--state", state)
    assert (status, found["sound"], found["fault"]) == (1, False, None)
    assert "which this ledger does not name" in found["own"]["problem"]
    forget(state)
    assert verified(capsys, "--state", state)[0] == 0
    assert verified(capsys, "--state", state, "--checkpoint", untouched.parent / "early") == (1, {})
    status, found = verified(capsys, "--state", state, "--key", untouched.parent / "key.pem")
    assert (status, found["fault"]["number"]) == (1, 1)


def test_tampered_export(untouched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An exported ledger is checked without the server, line by line."""
    lines = (untouched.parent / "all.jsonl").read_bytes().splitlines(keepends=True)
    for number, changed in (
        (4, [*lines[:4], lines[4].replace(b"brain", b"knees"), *lines[5:]]),
        (5, [*lines[:5], *lines[6:]]),
        (3, [*lines[:3], lines[4], lines[3], *lines[5:]]),
    ):
        file = tmp_path / "changed.jsonl"
        file.write_bytes(b"".join(changed))
        status, found = verified(capsys, "--file", file, "--key", untouched.parent / "key.pem")
        assert (status, found["fault"]["number"]) == (1, number)
    file.write_bytes(b"".join(lines[:-2]))
    assert verified(capsys, "--file", file)[0] == 0
    status, found = verified(capsys, "--file", file, "--checkpoint", untouched.parent / "late")
    assert (status, found["fault"]["number"]) == (1, SIZE - 1)
    for content in (b"", b"x\n", b"{}\n", lines[0] + b"{}\n"):
        file.write_bytes(content)
        assert verified(capsys, "--file", file) == (1, {})


def test_show(untouched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Entries are shown by kind and by number, and as JSON; an unknown kind is told those there are."""
    main_arguments = ["ledger", "show", "--state", str(untouched)]
    with pytest.raises(SystemExit):
        main([*main_arguments, "--kind", "withdrawal", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert [entry["body"]["to"] for entry in shown] == ["received", "restricted"]
    with pytest.raises(SystemExit):
        main([*main_arguments, "--last", "2"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    with pytest.raises(SystemExit) as ended:
        main([*main_arguments, "--kind", "wedding"])
    assert ended.value.code == 1
    assert "withdrawal" in capsys.readouterr().err
