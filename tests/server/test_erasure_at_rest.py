"""What lies in the state directory: nothing of a site that can be read, after its erasure nothing at all."""

from __future__ import annotations

import base64
import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reconsent.errors import ContributionError, EncryptionError, ReconsentError
from server.certifying import Draft, draft
from server.coordinator import Coordinator
from server.persistence import Ledger, StateDirectory, WithdrawalRecord
from server.persistence.verification import verify_ledger
from server.safekeeping import expire_between_runs
from tests.server.at_rest import POLICY, everything, keys_of
from tests.server.hospitals import Run, consortium, opened
from unlearning.certificate.statement import Signers
from unlearning.key_store import KeyStore
from unlearning.site_keys import SiteKeys


def config(**contributions: object):
    return consortium(contributions={"history-every": 1, "history-dtype": "float32", **contributions})


def pattern(run: Run, site: str) -> bytes:
    """Bytes of one update of ``site`` as float32: what to look for."""
    _, _, update = next(iter(run.coordinator.cache.updates(site)))
    return update.tobytes()[:32]


def train(path: Path, plan: object, rounds: int = 3) -> tuple[bytes, bytes]:
    """Some rounds; returns the patterns of an update and of the running sum of delta."""
    with opened(path, plan, simulated=False) as run:  # type: ignore[arg-type]
        run.coordinator.meet()
        run.coordinator.initialise()
        run.coordinator.train(rounds)
        sums = run.coordinator.cache.running("delta", "sum").tobytes()[:32]
        return pattern(run, "delta"), sums


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, tuple[bytes, bytes]]]:
    """Three rounds without encryption and with it, and their patterns; to be copied."""
    found = {}
    for encryption in ("none", "file"):
        path = tmp_path_factory.mktemp(encryption)
        found[encryption] = path, train(path, config(encryption=encryption))
    return found


Trained = Callable[..., tuple[bytes, bytes]]


@pytest.fixture
def trained(templates: dict[str, tuple[Path, tuple[bytes, bytes]]], tmp_path: Path) -> Trained:
    """Makes the test's directory one in which three rounds were trained; returns their patterns."""

    def copy(encryption: str = "file") -> tuple[bytes, bytes]:
        path, patterns = templates[encryption]
        shutil.copytree(path, tmp_path, dirs_exist_ok=True)
        return patterns

    return copy


@pytest.mark.parametrize("encryption", ["none", "file"])
def test_updates_are_readable_only_without_encryption(
    trained: Trained, tmp_path: Path, encryption: str
) -> None:
    """Bytes of a site's update and sum are in the state directory only without encryption."""
    patterns = trained(encryption)
    content = everything(tmp_path / "state")
    assert [found in content for found in patterns] == [encryption == "none"] * 2


def test_same_values_with_and_without_encryption(tmp_path: Path) -> None:
    """Encryption changes no bit of models or contributions."""
    ends = []
    for encryption in ("none", "file"):
        plan = config(encryption=encryption).model_copy(
            update={"withdrawals": consortium(withdrawals=[{"sites": ["delta"], "at-round": 4}]).withdrawals}
        )
        with opened(tmp_path / encryption, plan) as run:
            run.coordinator.run()
            cache = run.coordinator.cache
            sums = [cache.running(s, k).tobytes() for s in cache.sites() for k in ("sum", "specific")]
            updates = [u.tobytes() for s in cache.sites() for _, _, u in cache.updates(s)]
            ends.append((run.digests(), sums, updates))
    assert ends[0] == ends[1]


def test_turned_on_later_nothing_stays_readable(trained: Trained, tmp_path: Path) -> None:
    """When encryption is turned on, what was kept before is sealed before the next round; values stay."""
    patterns = trained("none")
    with opened(tmp_path, config(), simulated=False) as run:
        assert any("were not encrypted" in text for text in run.texts("notice"))
        assert pattern(run, "delta") == patterns[0]
        assert run.coordinator.cache.problems() == []
    content = everything(tmp_path / "state")
    assert not any(found in content for found in patterns)


def test_turned_off_what_is_sealed_is_refused_in_words(trained: Trained, tmp_path: Path) -> None:
    """With encryption turned off, sealed files are not taken for missing: the message says what to do."""
    trained()
    refused = pytest.raises(ContributionError, match="is encrypted")
    with opened(tmp_path, config(encryption="none"), simulated=False) as run, refused:
        run.coordinator.cache.running("delta", "sum")
    with opened(tmp_path, config(), simulated=False) as run:
        assert run.coordinator.cache.problems() == []


def test_missing_or_wrong_master_key_stops_the_server_before_anything(
    trained: Trained, tmp_path: Path
) -> None:
    """Without its master key, or with another, the server does not start, and nothing has changed."""
    trained()
    state = tmp_path / "state"
    master = state / "keys" / "master.key"
    right = master.read_bytes()
    kept = everything(state / "contributions")
    for wrong in (None, base64.b64encode(bytes(range(32)))):
        master.unlink(missing_ok=True)
        if wrong is not None:
            master.write_bytes(wrong)
            master.chmod(0o600)
        with pytest.raises(EncryptionError, match="master key"), opened(tmp_path, config(), simulated=False):
            pass
    assert everything(state / "contributions") == kept
    master.write_bytes(right)
    with opened(tmp_path, config(), simulated=False) as run:
        assert run.coordinator.cache.problems() == []


def test_lost_key_of_a_site_stops_the_server(trained: Trained, tmp_path: Path) -> None:
    """A key that is missing is not silently made anew: that would bury what was sealed by the old one."""
    trained()
    (tmp_path / "state" / "keys" / "sites" / "alpha.key").unlink()
    with pytest.raises(EncryptionError, match="key of site 'alpha' is missing"), opened(tmp_path, config()):
        pass
    assert not (tmp_path / "state" / "keys" / "sites" / "alpha.key").exists()


@pytest.mark.parametrize(
    ("damage", "word"), [("truncated", "truncated"), ("altered", "altered"), ("swapped", "checksum")]
)
def test_damaged_and_swapped_files_are_named(
    trained: Trained, tmp_path: Path, damage: str, word: str
) -> None:
    """A truncated, altered or swapped file is named with its site, and never used."""
    trained()
    kept = tmp_path / "state" / "contributions"
    file, other = kept / "delta" / "running-000003.sealed", kept / "gamma" / "running-000003.sealed"
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        del content[-1]
    elif damage == "altered":
        content[60] ^= 1
    else:
        content = bytearray(other.read_bytes())
    file.write_bytes(content)
    with opened(tmp_path, config()) as run:
        (problem,) = run.coordinator.cache.problems()
        assert "delta" in problem
        assert word in problem
        with pytest.raises(ContributionError, match="delta"):
            run.coordinator.cache.running("delta", "sum")


def test_swapped_together_with_the_index(trained: Trained, tmp_path: Path) -> None:
    """Whoever exchanges two rounds' files and their checksums in the index too is found by the seal."""
    trained()
    kept = tmp_path / "state" / "contributions" / "delta"
    with opened(tmp_path, config()) as run:
        one, two = kept / "update-000001.sealed", kept / "update-000002.sealed"
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)
        with run.coordinator.state.session() as session:
            connection = session.connection()
            rows = dict(
                connection.exec_driver_sql(
                    "SELECT round, sha256 FROM contributions "
                    "WHERE site = 'delta' AND kind = 'update' AND round < 3"
                ).all()
            )
            for round_, other in ((1, 2), (2, 1)):
                connection.exec_driver_sql(
                    "UPDATE contributions SET sha256 = ? "
                    "WHERE site = 'delta' AND kind = 'update' AND round = ?",
                    (rows[other], round_),
                )
        problems = run.coordinator.cache.problems()
        assert len(problems) == 2
        assert all("for another site, round or kind" in problem for problem in problems)


def test_after_the_erasure_nothing_is_left(trained: Trained, tmp_path: Path) -> None:
    """After a withdrawal no file of the site and no form of its key is in the state, log included."""
    trained()
    state = tmp_path / "state"
    secrets = keys_of(state, "delta")
    assert any(secret in everything(state) for secret in secrets)
    names = [path.name for path in (state / "contributions" / "delta").iterdir()]
    assert names
    with opened(tmp_path, config(), simulated=False) as run:
        run.coordinator.meet()
        record = run.coordinator.withdraw(["delta"])
        assert "keys destroyed" in run.coordinator.withdrawals.events(record.id)[-1].note
        assert not any(secret in everything(state) for secret in secrets), "also while the server runs"
    content = everything(state)
    assert not any(secret in content for secret in secrets)
    assert b"delta/running" not in content, "nor its rows in free pages or the log of writes"
    assert list(state.rglob("*delta*")) == []
    assert SiteKeys(state / "keys", POLICY).sites() == ["alpha", "beta", "gamma"]


def test_a_copy_of_the_keys_out_of_reach_is_certified(trained: Trained, tmp_path: Path) -> None:
    """The certificate counts the copies that may still hold the key, until a later start has reached them.

    Where they are stays out of it: a path may name a person.
    """
    trained()
    disk, away = tmp_path / "disk-of-jane", tmp_path / "away"
    disk.mkdir()
    store = KeyStore(tmp_path / "state" / "keys", POLICY)
    assert store.add_copy(disk / "keys.json") == []
    disk.rename(away)
    with opened(tmp_path, config(), simulated=False) as run:
        run.coordinator.meet()
        record = run.coordinator.withdraw(["delta"])
    made = certificate(tmp_path, record)
    assert made.certificate.erasure is not None
    assert "1 of 1 copies of the keys not reached" in made.certificate.erasure.how
    assert any(text.startswith("1 of 1 copies") for text in made.certificate.exceptions)
    assert place(made, "copies of the keys") == (1, 1)
    assert not any(b"jane" in content for content in made.files.values())
    away.rename(disk)
    with opened(tmp_path, config(), simulated=False):
        pass
    made = certificate(tmp_path, record)
    assert made.certificate.erasure is not None
    assert "at a later attempt" in made.certificate.erasure.how
    assert not any("copies of the keys" in text for text in made.certificate.exceptions)
    assert place(made, "copies of the keys") == (1, 0)
    with StateDirectory.open(tmp_path / "state", writable=False) as state:
        assert verify_ledger(state).problem == ""


def certificate(path: Path, record: WithdrawalRecord) -> Draft:
    """The draft of a withdrawal's certificate."""
    signers = Signers(operator="0" * 64, privacy_officer="1" * 64)
    with StateDirectory.open(path / "state", writable=False) as state:
        return draft(state, config(), record, signers=signers, secret=b"s" * 32)


def place(made: Draft, what: str) -> tuple[int, int]:
    """What was in a place before and after, by the list of what is left."""
    (found,) = [p for p in json.loads(made.files["residuals.json"])["places"] if p["what"] == what]
    return found["before"], found["after"]


def test_without_encryption_files_and_rows_go_too(trained: Trained, tmp_path: Path) -> None:
    """Without encryption the erased updates are in no file either, and the erasure is noted."""
    patterns = trained("none")
    with opened(tmp_path, config(encryption="none"), simulated=False) as run:
        run.coordinator.meet()
        run.coordinator.withdraw(["delta"])
    content = everything(tmp_path / "state")
    assert not any(found in content for found in patterns)
    assert [e.site for e in KeyStore(tmp_path / "state" / "keys", None).erased()] == ["delta"]


def test_old_updates_expire_by_rounds(tmp_path: Path) -> None:
    """Updates older than keep-rounds go at each commit, their norms stay; they are counted and told of."""
    with opened(tmp_path, config(**{"keep-rounds": 2}), simulated=False) as run:
        run.coordinator.meet()
        run.coordinator.initialise()
        run.coordinator.train(5)
        cache = run.coordinator.cache
        assert [number for number, _, _ in cache.updates("delta")] == [4, 5]
        assert len(cache.norms("delta")) == 5
        assert run.coordinator.safekeeping.expired() == 12
        entries = Ledger(run.coordinator.state).entries(["contributions-expired"])
        assert [entry.body["files"] for entry in entries] == [4, 4, 4]
        assert any(text.startswith("12 kept updates") for text in run.texts("notice"))
        assert cache.problems() == []
    names = {path.name for path in (tmp_path / "state" / "contributions" / "delta").iterdir()}
    assert names == {"update-000004.sealed", "update-000005.sealed", "running-000005.sealed"}


def test_a_new_limit_holds_at_the_next_start(trained: Trained, tmp_path: Path) -> None:
    """A limit that was set later is kept at the start of the server, before any round."""
    trained()
    with opened(tmp_path, config(**{"keep-rounds": 1})) as run:
        assert any(text.startswith("8 kept updates") for text in run.texts("notice"))
        assert [number for number, _, _ in run.coordinator.cache.updates("alpha")] == [3]


def test_old_updates_expire_by_days_and_frozen_ones_do_not(trained: Trained, tmp_path: Path) -> None:
    """Updates older than keep-days go; those of a site that is being withdrawn are left alone."""
    trained()
    with opened(tmp_path, config(**{"keep-days": 30.0}), simulated=False) as run:
        coordinator: Coordinator = run.coordinator
        coordinator.withdrawals.file(["delta"], reason="asked", requested_by="dpo", restrict=True)
        upkeep, now = coordinator.cache.upkeep, dt.datetime.now(dt.UTC)
        with coordinator.state.session() as session:
            assert upkeep.expire(session=session, now=now + dt.timedelta(days=29)).count == 0
            assert upkeep.expire(session=session, now=now + dt.timedelta(days=31)).count == 9
        assert len(list(coordinator.cache.updates("delta"))) == 3
        assert list(coordinator.cache.updates("alpha")) == []


def test_old_updates_expire_without_a_run(trained: Trained, tmp_path: Path) -> None:
    """Between runs they go too, by `reconsent purge` for one; while a server is at work it does so itself."""
    trained()
    limited = config(**{"keep-rounds": 1})
    state = tmp_path / "state"
    with StateDirectory.open(state, url=""):
        assert expire_between_runs(state, limited) is None
    assert expire_between_runs(state, limited) == 8
    assert expire_between_runs(state, limited) == 0
    assert expire_between_runs(tmp_path / "nowhere", limited) is None
    names = sorted(path.name for path in (state / "contributions" / "delta").iterdir())
    assert names == ["running-000003.sealed", "update-000003.sealed"]


def test_full_disk_while_keys_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a site's key cannot be written, the round fails in words, and is done when there is room again."""
    with monkeypatch.context() as patch:

        def full(path: Path, content: bytes) -> None:
            raise OSError(28, "No space left on device", str(path))

        patch.setattr("unlearning.site_keys.write_private", full)
        with pytest.raises(ReconsentError, match="cannot be written"):
            train(tmp_path, config(encryption="file", **{"master-key": tmp_path / "made.key"}))
    train(tmp_path, config(encryption="file", **{"master-key": tmp_path / "made.key"}))
    assert (tmp_path / "made.key").is_file()
    assert not (tmp_path / "state" / "keys" / "master.key").exists()
