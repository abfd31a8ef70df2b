"""The site as a witness: a server whose ledger does not go on from what the site saw is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, Message

from client.witness import Witness, witness_path
from server.persistence import Ledger, StateDirectory
from server.persistence.ledger import KEY_FILE
from server.witnesses import Witnesses
from strategies import messages as msg
from strategies.outcomes import SiteOutcome
from tests.client.hospital import Hospital
from unlearning.ledger.checkpoints import read_checkpoint
from unlearning.ledger.exports import read_checkpoint_file


class Server:
    """A real ledger in a state directory, and what its server tells a site of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.grow(1)

    def grow(self, entries: int) -> None:
        """Append so many entries."""
        with StateDirectory.open(self.path, url="") as state:
            for _ in range(entries):
                Ledger(state).append("round", {})

    def told(self, *seen: int) -> dict[str, Any]:
        """As to a site that may have seen ledgers of these sizes."""
        with StateDirectory.open(self.path, url="", writable=False) as state:
            witnesses = Witnesses(Ledger(state), simulated=False)
            witnesses._seen["north"] = list(seen)
            return witnesses.told("north")

    def replace_key(self) -> str:
        """Sign by a new key from now on; returns its id."""
        with StateDirectory.open(self.path, url="") as state:
            return Ledger(state).replace_key().key_id


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "server")


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path / "site.witness.json")


def code(witness: Witness, told: dict[str, Any], pinned: str | None = None) -> str | None:
    refusal = witness.refusal(told, pinned=pinned)
    return None if refusal is None else refusal.code


def test_ledger_that_grows_is_followed(server: Server, witness: Witness) -> None:
    """From one checkpoint to the next, and twice the same, the site goes along and keeps the newest."""
    assert witness.entries() is None
    assert code(witness, server.told()) is None
    for entries in (0, 1, 5, 20):
        before = witness.entries()
        assert before is not None
        server.grow(entries)
        assert code(witness, server.told(before)) is None
        assert witness.entries() == before + entries
    kept = read_checkpoint_file(witness.path)
    assert read_checkpoint(kept.envelope, [kept.key]).size == witness.entries()


def test_restored_backup_is_refused(server: Server, witness: Witness, tmp_path: Path) -> None:
    """A ledger that is shorter than it was is refused, and so is what is then added to it."""
    database = server.path / "state.sqlite"
    server.grow(3)
    backup = database.read_bytes()
    server.grow(3)
    assert code(witness, server.told()) is None
    for file in server.path.glob("state.sqlite*"):
        file.unlink()
    database.write_bytes(backup)
    assert code(witness, server.told(8)) == "ledger-shorter"
    server.grow(10)
    assert code(witness, server.told(8)) == "ledger-forked"
    assert witness.entries() == 8, "what was seen is kept"
    contradiction = read_checkpoint_file(tmp_path / "site.witness.json.contradiction")
    assert read_checkpoint(contradiction.envelope, [contradiction.key]).size == 15, "and what contradicts it"


def test_other_history_of_the_same_length_is_refused(server: Server, witness: Witness) -> None:
    """A site that is shown another last entry than it saw refuses it, though its length is right."""
    backup = (server.path / "state.sqlite").read_bytes()
    server.grow(1)
    assert code(witness, server.told()) is None
    for file in server.path.glob("state.sqlite*"):
        file.unlink()
    (server.path / "state.sqlite").write_bytes(backup)
    server.grow(1)
    assert code(witness, server.told(3)) == "ledger-forked"


def test_other_ledger_is_refused(server: Server, witness: Witness, tmp_path: Path) -> None:
    """Another ledger, even one signed by the same key, is not the one the site knew."""
    assert code(witness, server.told()) is None
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / KEY_FILE).write_bytes((server.path / KEY_FILE).read_bytes())
    (other / KEY_FILE).chmod(0o600)
    assert code(witness, Server(other).told(2)) == "ledger-other"
    assert code(witness, Server(tmp_path / "third").told(2)) == "ledger-key"


def test_key_is_that_of_first_use_or_of_the_policy(server: Server, witness: Witness) -> None:
    """A new key is refused until the policy names it, and a pinned one is the only one from the beginning."""
    assert code(witness, server.told(), pinned="0" * 64) == "ledger-key"
    assert code(witness, server.told()) is None
    new = server.replace_key()
    assert code(witness, server.told(2)) == "ledger-key"
    assert code(witness, server.told(2), pinned=new) is None
    assert code(witness, server.told(3)) is None, "from now on it is the key that was seen"


@pytest.mark.parametrize("key", [msg.CHECKPOINT, msg.CHECKPOINT_KEY, msg.CHECKPOINT_PROOFS])
@pytest.mark.parametrize("value", ["", "x", "[]", "{}", "null", "[" * 5000, 7])
def test_nonsense_is_refused(server: Server, witness: Witness, key: str, value: Any) -> None:
    """Whatever is sent in place of checkpoint, key or proofs, the answer is a refusal in words."""
    assert code(witness, server.told()) is None
    server.grow(1)
    wanted = "ledger-unproven" if key == msg.CHECKPOINT_PROOFS else "ledger-key"
    assert code(witness, server.told(2) | {key: value}) == wanted
    assert code(witness, server.told(2)) is None


def test_proof_for_another_size_is_no_proof(server: Server, witness: Witness) -> None:
    """Hashes that prove something else prove nothing."""
    assert code(witness, server.told()) is None
    server.grow(3)
    told = server.told(1, 2, 3)
    proofs = json.loads(told[msg.CHECKPOINT_PROOFS])
    for wrong in (proofs["1"], [], ["zz"], [7], proofs["2"][:-1]):
        changed = told | {msg.CHECKPOINT_PROOFS: json.dumps({"2": wrong})}
        assert code(witness, changed) == "ledger-forked"
    assert code(witness, told) is None


def test_server_that_falls_silent_is_refused(server: Server, witness: Witness) -> None:
    """A site that never saw a ledger needs none; one that did, or has a key pinned, does."""
    assert code(witness, {}) is None
    assert code(witness, {}, pinned="0" * 64) == "ledger-missing"
    assert code(witness, server.told()) is None
    assert code(witness, {}) == "ledger-missing"


def test_damaged_witness_file(server: Server, witness: Witness) -> None:
    """A file that was altered allows nothing; without it the site begins afresh."""
    assert code(witness, server.told()) is None
    content = witness.path.read_text()
    for damage in ("", "x", content.replace('"sig":"', '"sig":"AAAA'), "{}"):
        witness.path.write_text(damage)
        assert code(witness, server.told(2)) == "witness-unreadable"
    witness.path.unlink()
    assert code(witness, server.told()) is None


def test_server_learns_where_a_site_stands(server: Server, witness: Witness) -> None:
    """A site that saw a message whose answer was lost is proved the right thing, at the second try."""
    assert code(witness, server.told()) is None
    with StateDirectory.open(server.path, url="") as state:
        ledger = Ledger(state)
        witnesses = Witnesses(ledger, simulated=False)
        for _ in range(40):
            # Nothing comes back: the site may have seen any of these.
            ledger.append("round", {})
            assert code(witness, witnesses.told("north")) in (None, "ledger-unproven")
        ledger.append("round", {})
        fresh = Witnesses(ledger, simulated=False)
        refusal = witness.refusal(fresh.told("north"))
        assert refusal is not None
        reason = f"{msg.REFUSED_BY_SITE}: {refusal.code}: {refusal.sentence}"
        fresh.answered([SiteOutcome("north", "refused", reason)])
        assert code(witness, fresh.told("north")) is None
        fresh.answered([SiteOutcome("north", "ok", metrics={msg.WITNESSED: float(witness.entries() or 0)})])
        assert list(fresh._seen["north"]) == [witness.entries()]
        fresh.answered([SiteOutcome("north", "ok", metrics={msg.WITNESSED: 1e9})])
        fresh.answered([SiteOutcome("north", "ok", metrics={msg.WITNESSED: float("nan")})])
        assert list(fresh._seen["north"]) == [witness.entries()], "what it cannot have seen is not believed"


def test_nothing_is_sent_in_a_simulation(server: Server) -> None:
    """Simulated sites keep nothing, so they are told nothing."""
    with StateDirectory.open(server.path, url="", writable=False) as state:
        assert Witnesses(Ledger(state), simulated=True).told("north") == {}


def test_file_is_beside_the_log() -> None:
    """The witness file is named after the log."""
    names = {"site.log.jsonl": "site", "policy.log.jsonl": "policy", "a.jsonl": "a", "odd": "odd"}
    for log, stem in names.items():
        assert witness_path(Path("x") / log) == Path("x") / f"{stem}.witness.json"


def train(hospital: Hospital, model: ArrayRecord, told: dict[str, Any], log: bool = True) -> Message:
    node = {"policy": str(hospital.policy), "log": str(hospital.log)} if log else None
    return hospital.ask("train", arrays=model, config=told, node=node)


def test_real_site_refuses_a_forked_history(hospital: Hospital, model: ArrayRecord, server: Server) -> None:
    """The real ClientApp trains for a ledger that grows, says how much it saw, and refuses another."""
    hospital.policy.write_text("")
    reply = train(hospital, model, server.told())
    assert msg.metrics_of(reply)[msg.WITNESSED] == 2
    node = {"policy": str(hospital.policy), "log": str(hospital.log)}
    assert msg.config_of(hospital.ask("query.identify", node=node))[msg.WITNESSED] == 2
    backup = (server.path / "state.sqlite").read_bytes()
    server.grow(2)
    assert msg.metrics_of(train(hospital, model, server.told(2)))[msg.WITNESSED] == 4
    for file in server.path.glob("state.sqlite*"):
        file.unlink()
    (server.path / "state.sqlite").write_bytes(backup)
    server.grow(9)
    reply = train(hospital, model, server.told(4))
    assert (reply.error.reason or "").startswith(f"{msg.REFUSED_BY_SITE}: ledger-forked: ")
    assert hospital.entries()[-1]["reason"] == "ledger-forked"
    assert hospital.entries()[-1]["event"] == "refused"
    assert not train(hospital, model, server.told(4), log=False).has_error(), "nothing is kept without a log"


def test_pinned_key_in_the_policy(hospital: Hospital, model: ArrayRecord, server: Server) -> None:
    """The policy names the key by its fingerprint; another one is refused from the first message."""
    hospital.policy.write_text(f'ledger-key = "{"0" * 64}"')
    assert "ledger-key" in (train(hospital, model, server.told()).error.reason or "")
    with StateDirectory.open(server.path, url="", writable=False) as state:
        key = Ledger(state).public_key()
    assert key is not None
    hospital.policy.write_text(f'ledger-key = "{key.key_id}"')
    assert not train(hospital, model, server.told()).has_error()
