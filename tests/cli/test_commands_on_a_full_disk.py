"""Commands on a disk that is full: it is said, nothing is half done, and with room again they do it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconsent.config import dump_consortium
from server.persistence import Certificates, StateDirectory
from server.signing_terms import signing_terms
from tests.cli.officer_at_work import Officer
from tests.server.hospitals import consortium
from tests.small_disk import fill, small_disk
from unlearning.contributions import ContributionCache
from unlearning.key_store import KeyStore
from unlearning.signing import load_public_key
from unlearning.site_keys import KeyPolicy


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four mebibytes."""
    with small_disk(tmp_path / "disk", 4 * 2**20) as mounted:
        yield mounted


@pytest.fixture
def here(officer: Officer, disk: Path) -> Officer:
    """The officer whose state is on that disk."""
    shutil.move(officer.path, disk / "run")
    officer.path = disk / "run"
    return officer


def refused(officer: Officer, *arguments: str, state: bool = True) -> str:
    """Type a command for which there is no room: it says so; returns its words."""
    said = officer(*arguments, status=1, state=state)
    # The last is SQLite's word where its shared memory finds no room.
    assert "space" in said.lower() or "full" in said or "the disk reports an error" in said, said
    return said


def readable(officer: Officer) -> int:
    """How many contributions can be decrypted; all, or it is an error. No file is half-written."""
    path = officer.path / "state"
    assert list(path.rglob("*.part")) == []
    with StateDirectory.open(path, url="") as state:
        keys = KeyStore(state.keys_dir, KeyPolicy()).sites
        cache = ContributionCache(state.contributions_dir, state.session, keys=keys)
        assert cache.problems() == []
        return sum(len(list(cache.updates(site))) for site in cache.sites())


def test_no_output_is_half_written_to_a_full_disk(officer: Officer, disk: Path, tmp_path: Path) -> None:
    """Every command that writes a file says which one cannot be written, and leaves nothing behind."""
    key, issued = str(tmp_path / "officer"), tmp_path / "issued"
    officer("certificate", "key", key, state=False)
    officer("certificate", "issue", "W-", "--officer", f"{key}.pub", "--out", str(issued))
    (bundle,) = issued.iterdir()
    shutil.copytree(bundle, disk / "bundle")
    before = (disk / "bundle" / "certificate.dsse.json").read_bytes()
    fill(disk)
    there = sorted(path for path in disk.rglob("*"))
    for arguments, with_state in {
        ("certificate", "issue", "W-", "--out", str(disk)): True,
        ("certificate", "countersign", str(disk / "bundle"), "--key", key): False,
        ("certificate", "show", str(bundle), "--out", str(disk / "page.html")): False,
        ("certificate", "key", str(disk / "key")): False,
        ("ledger", "export", str(disk / "ledger.jsonl")): True,
        ("ledger", "key", "--out", str(disk / "operator.pub")): True,
        ("record", "--out", str(disk / "record.md")): True,
        ("model", "export", "latest", "--out", str(disk / "model")): True,
        ("backup", str(disk / "backup"), "--keys", str(tmp_path / "keys.json")): True,
    }.items():
        said = officer(*arguments, status=1, state=with_state)
        assert "No space left" in said, arguments
        assert str(disk) in said, arguments
    left = {path for path in disk.rglob("*") if path.is_file()} - {path for path in there if path.is_file()}
    assert not {path.name for path in left if not path.is_relative_to(disk / "backup")}
    assert not (disk / "backup" / "manifest.json").exists()
    assert (disk / "bundle" / "certificate.dsse.json").read_bytes() == before


def test_a_register_on_a_full_disk_loses_nothing(officer: Officer, disk: Path) -> None:
    """What cannot be put on record is not done: all is as before, and it can be done again."""
    shutil.move(officer.path, disk / "run")
    officer.path = disk / "run"
    officer("withdrawals", "note", "W-", "before")
    before = officer("withdrawals", "show", "W-", "--json")
    filler = fill(disk)
    for arguments in (
        ("withdrawals", "note", "W-", "x" * 3900, "--channel", "letter", "--agreement", "DUA-7"),
        ("withdrawals", "extend", "W-", "--reason", "y" * 3900),
        ("withdrawals", "refuse", "W-", "--reason", "z" * 3900),
    ):
        said = officer(*arguments, status=1)
        assert "space" in said or "full" in said, said
    filler.unlink()
    assert officer("withdrawals", "show", "W-", "--json") == before
    assert "Every entry is as it was written" in officer("ledger", "verify")
    officer("withdrawals", "extend", "W-", "--reason", "again")


@pytest.mark.parametrize("leaving", [0, 48 * 1024])
def test_a_certificate_on_a_full_disk_is_issued_later(
    officer: Officer, disk: Path, tmp_path: Path, leaving: int
) -> None:
    """Nothing half-issued is kept or on record; with room again it is issued, the officer's key kept."""
    shutil.move(officer.path, disk / "run")
    officer.path = disk / "run"
    key, out = str(tmp_path / "officer"), tmp_path / "out"
    officer("certificate", "key", key, state=False)
    issue = ("certificate", "issue", "W-", "--officer", f"{key}.pub", "--out", str(out))
    before = officer("withdrawals", "show", "W-", "--json")
    filler = fill(disk, leaving)
    said = officer(*issue, status=1)
    assert "space" in said or "full" in said, said
    filler.unlink()
    assert not out.exists()
    assert officer("withdrawals", "show", "W-", "--json") == before
    assert list((officer.path / "state").rglob("*.part")) == []
    assert "Every entry is as it was written" in officer("ledger", "verify")
    officer(*issue)
    with StateDirectory.open(officer.path / "state", url="", writable=False) as state:
        assert len(Certificates(state).all()) == 1
        terms = [term.key for term in signing_terms(state) if term.role == "privacy_officer"]
        assert terms == [load_public_key(Path(f"{key}.pub"))]


@pytest.mark.parametrize("full", ["state", "target", "keys"])
def test_a_backup_on_a_full_disk_is_made_later(
    officer: Officer, disk: Path, tmp_path: Path, full: str
) -> None:
    """Full where the state is, the backup or the keys: said, and what is there passes for no backup.

    With room again the same command makes one, which can be restored.
    """
    target, keys = tmp_path / "backup", tmp_path / "keys.json"
    if full == "state":
        shutil.move(officer.path, disk / "run")
        officer.path = disk / "run"
    elif full == "target":
        target = disk / "backup"
    else:
        keys = disk / "keys.json"
    backup = ("backup", str(target), "--keys", str(keys))
    before = officer("withdrawals", "show", "W-", "--json")
    filler = fill(disk)
    said = officer(*backup, status=1)
    assert "space" in said.lower() or "full" in said, said
    filler.unlink()
    assert not target.exists() or not list(target.iterdir())
    assert officer("withdrawals", "show", "W-", "--json") == before
    assert "Every entry is as it was written" in officer("ledger", "verify")
    officer(*backup)
    officer.path = tmp_path / "again"
    officer("restore", str(target), "--keys", str(keys))
    assert officer("withdrawals", "show", "W-", "--json") == before


def test_a_countersigned_certificate_is_accepted_later(here: Officer, disk: Path, tmp_path: Path) -> None:
    """That both have signed is kept and on record together, or neither; with room again it is accepted."""
    key, out = str(tmp_path / "officer"), tmp_path / "out"
    here("certificate", "key", key, state=False)
    here("certificate", "issue", "W-", "--officer", f"{key}.pub", "--out", str(out))
    (bundle,) = out.iterdir()
    here("certificate", "countersign", str(bundle), "--key", key, state=False)
    before = here("ledger", "show", "--json")

    def kept() -> list[bool]:
        with StateDirectory.open(here.path / "state", url="", writable=False) as state:
            return [entry.countersigned_at is not None for entry in Certificates(state).all()]

    filler = fill(disk)
    refused(here, "certificate", "accept", str(bundle))
    filler.unlink()
    assert kept() == [False]
    assert here("ledger", "show", "--json") == before
    here("certificate", "accept", str(bundle))
    assert kept() == [True]
    assert "Every entry is as it was written" in here("ledger", "verify")


@pytest.mark.parametrize("leaving", [0, 16, 256], ids="{} KiB".format)
def test_a_backup_is_restored_later(officer: Officer, disk: Path, tmp_path: Path, leaving: int) -> None:
    """A restore that was cut off passes for no state; the same command with room restores all of it."""
    backup, keys = tmp_path / "backup", tmp_path / "keys.json"
    before, contributions = officer("withdrawals", "show", "W-", "--json"), readable(officer)
    officer("backup", str(backup), "--keys", str(keys))
    master = (officer.path / "state" / "keys" / "master.key").read_bytes()
    officer.path = disk
    (disk / "state" / "keys").mkdir(parents=True)
    (disk / "state" / "keys" / "master.key").write_bytes(master)
    (disk / "state" / "keys" / "master.key").chmod(0o600)
    consortium_file = tmp_path / "consortium.toml"
    consortium_file.write_text(dump_consortium(consortium()))
    restore = ("restore", str(backup), "--keys", str(keys), "--consortium", str(consortium_file))
    filler = fill(disk, leaving * 1024)
    refused(officer, *restore)
    officer("withdrawals", "list", status=1)
    filler.unlink()
    officer(*restore)
    assert officer("withdrawals", "show", "W-", "--json") == before
    assert "Every entry is as it was written" in officer("ledger", "verify")
    assert readable(officer) == contributions > 0


def test_what_is_too_old_is_purged_later(here: Officer, disk: Path) -> None:
    """Nothing is removed or on record of it; with room again it goes."""
    keeping = consortium(contributions={"keep-rounds": 1})
    (here.path / "consortium.toml").write_text(dump_consortium(keeping))
    before, kept = here("ledger", "show", "--json"), readable(here)
    filler = fill(disk)
    refused(here, "purge")
    filler.unlink()
    assert here("ledger", "show", "--json") == before
    assert readable(here) == kept
    removed = json.loads(here("purge", "--json"))["expired"]
    assert removed > 0
    assert readable(here) == kept - removed
    assert "Every entry is as it was written" in here("ledger", "verify")


def test_keys_are_rotated_later(here: Officer, disk: Path) -> None:
    """Wherever it is cut off, every contribution can be read; with room no key is by the former one."""

    def masters() -> set[str]:
        return {site["master"] for site in json.loads(here("keys", "show", "--json"))["sites"].values()}

    former, kept = masters(), readable(here)
    failures = []
    for leaving in (0, 16, *range(32, 200, 4)):
        filler = fill(disk, leaving * 1024)
        failures.append(here("keys", "rotate", status=None))
        filler.unlink()
        assert readable(here) == kept > 0
        if "keys are wrapped by" in failures[-1]:
            break
    assert "keys are wrapped by" in failures.pop()
    assert any("key" in said.partition("keys/")[2] for said in failures), failures
    assert len(masters()) == 1
    assert not masters() & former
