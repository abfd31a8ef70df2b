"""Keys of sites: wrapped, found again, refused when wrong, rotated, destroyed."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from reconsent.errors import EncryptionError
from unlearning.key_store import KeyCopy, KeyStore
from unlearning.site_keys import MASTER_VARIABLE, KeyPolicy, SiteKeys

POLICY = KeyPolicy()


def random_master() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def everything(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def test_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    """A site's key is the same in the next process, differs from others', and is stored wrapped only."""
    keys = SiteKeys(tmp_path, POLICY)
    knee = keys.key("knee")
    assert keys.key("brain") != knee
    assert SiteKeys(tmp_path, POLICY).existing("knee") == knee
    assert knee not in everything(tmp_path)
    assert base64.b64encode(knee) not in everything(tmp_path)


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    """Keys are readable by their owner only; a master key that others can read is refused."""
    SiteKeys(tmp_path, POLICY).key("knee")
    for path in (tmp_path / "master.key", tmp_path / "sites" / "knee.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "master.key").chmod(0o640)
    with pytest.raises(EncryptionError, match="read by others"):
        SiteKeys(tmp_path, POLICY).check()


def test_missing_master_key_is_not_replaced(tmp_path: Path) -> None:
    """Without its master key nothing is made anew or lost; put back, everything is there."""
    master, away = tmp_path / "master.key", tmp_path / "away"
    knee = SiteKeys(tmp_path, POLICY).key("knee")
    master.rename(away)
    for attempt in (lambda keys: keys.check(), lambda keys: keys.key("knee"), lambda keys: keys.key("new")):
        with pytest.raises(EncryptionError, match="master key"):
            attempt(SiteKeys(tmp_path, POLICY))
    assert not master.exists()
    away.rename(master)
    assert SiteKeys(tmp_path, POLICY).key("knee") == knee


def test_wrong_master_key_is_named(tmp_path: Path) -> None:
    """With another master key the message names both, and no file changes."""
    SiteKeys(tmp_path, POLICY).key("knee")
    (tmp_path / "master.key").write_text(random_master())
    before = everything(tmp_path)
    with pytest.raises(EncryptionError, match=r"was wrapped by master key local-\w+, and here is local-\w+"):
        SiteKeys(tmp_path, POLICY).check()
    assert everything(tmp_path) == before


@pytest.mark.parametrize("text", ["", "short", base64.b64encode(bytes(31)).decode(), "ü"])
def test_what_is_no_master_key_is_refused(tmp_path: Path, text: str) -> None:
    """An empty, short or garbled master key is refused, and not repeated in the message."""
    (tmp_path / "master.key").write_text(text)
    (tmp_path / "master.key").chmod(0o600)
    with pytest.raises(EncryptionError) as caught:
        SiteKeys(tmp_path, POLICY).check()
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"site": "knee"}'])
def test_damaged_wrapped_key_is_named(tmp_path: Path, content: bytes) -> None:
    """A truncated key file is named, and not replaced by a new key."""
    SiteKeys(tmp_path, POLICY).key("knee")
    file = tmp_path / "sites" / "knee.key"
    file.write_bytes(content)
    with pytest.raises(EncryptionError, match=r"knee\.key is truncated"):
        SiteKeys(tmp_path, POLICY).key("knee")
    assert file.read_bytes() == content


def test_wrapped_keys_cannot_be_exchanged(tmp_path: Path) -> None:
    """One site's wrapped key does not pass for another's."""
    keys = SiteKeys(tmp_path, POLICY)
    keys.key("knee"), keys.key("brain")
    entry = json.loads((tmp_path / "sites" / "knee.key").read_text())
    (tmp_path / "sites" / "brain.key").write_text(json.dumps({**entry, "site": "brain"}))
    with pytest.raises(EncryptionError, match="altered, or belongs to another"):
        SiteKeys(tmp_path, POLICY).check()


def test_master_key_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A master key in the environment is never written down; without it the variable is named."""
    master, policy = random_master(), KeyPolicy("env")
    monkeypatch.delenv(MASTER_VARIABLE, raising=False)
    with pytest.raises(EncryptionError, match=MASTER_VARIABLE):
        SiteKeys(tmp_path, policy).check()
    monkeypatch.setenv(MASTER_VARIABLE, master)
    knee = SiteKeys(tmp_path, policy).key("knee")
    assert master.encode() not in everything(tmp_path)
    assert not (tmp_path / "master.key").exists()
    monkeypatch.setenv(MASTER_VARIABLE, f"{random_master()},{master}")
    keys = SiteKeys(tmp_path, policy)
    assert keys.key("knee") == knee
    keys.rewrap()
    monkeypatch.setenv(MASTER_VARIABLE, os.environ[MASTER_VARIABLE].split(",")[0])
    assert SiteKeys(tmp_path, policy).key("knee") == knee


def service(tmp_path: Path) -> KeyPolicy:
    """Two commands that stand for a key management service: it turns the text round."""
    script = tmp_path / "service.py"
    script.write_text("import os, sys; sys.stdout.write(os.environ['RECONSENT_SITE'] and input()[::-1])")
    return KeyPolicy("command", None, f"{sys.executable} {script}", f"{sys.executable} {script}")


def test_key_management_service(tmp_path: Path) -> None:
    """Keys go through the two commands, and come back the same."""
    directory = tmp_path / "keys"
    knee = SiteKeys(directory, service(tmp_path)).key("knee")
    assert SiteKeys(directory, service(tmp_path)).existing("knee") == knee
    assert json.loads((directory / "sites" / "knee.key").read_text())["master"] == "command"


@pytest.mark.parametrize(
    ("wrap", "unwrap", "message"),
    [
        ("false", "cat", "ended with status 1"),
        ("/no/such/program", "cat", "failed"),
        ("true", "cat", "gave nothing"),
        ("cat", "cat", "the key itself"),
        ("rev", "cat", "does not give back|no master key"),
    ],
)
def test_a_service_that_fails_is_found_before_anything_is_kept(
    tmp_path: Path, wrap: str, unwrap: str, message: str
) -> None:
    """Commands that fail, or do not undo each other, are named by the check; no key file comes to be."""
    keys = SiteKeys(tmp_path / "keys", KeyPolicy("command", None, wrap, unwrap))
    with pytest.raises(EncryptionError, match=message):
        keys.check()
    assert keys.sites() == []


def test_rotation(tmp_path: Path) -> None:
    """After a rotation keys are the same, wrapped by another master key, and the former is gone."""
    keys = SiteKeys(tmp_path, POLICY)
    knee, former = keys.key("knee"), (tmp_path / "master.key").read_text().strip()
    name = keys.rewrap()
    assert SiteKeys(tmp_path, POLICY).key("knee") == knee
    assert former.encode() not in everything(tmp_path)
    assert keys.entries()["knee"]["master"] == name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["master.key", "sites"]


def test_rotation_cut_off_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation that fails at any write leaves every key readable, and can be repeated."""
    keys = SiteKeys(tmp_path, POLICY)
    before = {site: keys.key(site) for site in ("a", "b", "c")}
    real = SiteKeys._store
    for allowed in range(4):
        left = [allowed]

        def failing(self: SiteKeys, entry: dict[str, str], left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise EncryptionError("the disk is full")
            real(self, entry)

        with monkeypatch.context() as patch:
            patch.setattr(SiteKeys, "_store", failing)
            if allowed < 3:
                with pytest.raises(EncryptionError, match="full"):
                    SiteKeys(tmp_path, POLICY).rewrap()
        fresh = SiteKeys(tmp_path, POLICY)
        assert {site: fresh.key(site) for site in before} == before
    assert SiteKeys(tmp_path, POLICY).rewrap()
    assert len((tmp_path / "master.key").read_text().split()) == 1


def test_from_a_file_to_a_service(tmp_path: Path) -> None:
    """Changed to another kind of master key, keys are wrapped anew by a rotation and stay the same."""
    directory = tmp_path / "keys"
    knee = SiteKeys(directory, POLICY).key("knee")
    keys = SiteKeys(directory, service(tmp_path))
    assert keys.key("knee") == knee
    assert keys.rewrap() == "command"
    (directory / "master.key").unlink()
    assert SiteKeys(directory, service(tmp_path)).key("knee") == knee


def test_destroyed_key(tmp_path: Path) -> None:
    """A destroyed key is in no file, and what it would open is named as lost; the next key is another."""
    keys = SiteKeys(tmp_path, POLICY)
    knee, wrapped = keys.key("knee"), (tmp_path / "sites" / "knee.key").read_bytes()
    other = tmp_path / "witness"
    other.hardlink_to(tmp_path / "sites" / "knee.key")
    assert keys.destroy(["knee", "never"]) == ["knee"]
    assert other.read_bytes() == bytes(len(wrapped)), "overwritten where it lay"
    with pytest.raises(EncryptionError, match="key of site 'knee' is missing"):
        keys.existing("knee")
    assert keys.key("knee") != knee


def test_copies_follow_erasures(tmp_path: Path) -> None:
    """An erased site's key goes from every copy too, and copies say who was erased."""
    store = KeyStore(tmp_path / "keys", POLICY)
    assert store.sites is not None
    for site in ("knee", "brain"):
        store.sites.key(site)
    copy = tmp_path / "backups" / "keys.json"
    copy.parent.mkdir()
    assert store.add_copy(copy) == []
    wrapped = KeyCopy.read(copy).keys["knee"]["wrapped"]
    witness = tmp_path / "witness"
    witness.hardlink_to(copy)
    assert store.erase(["knee"], "W-1") == []
    found = KeyCopy.read(copy)
    assert found.keys.keys() == {"brain"}
    assert [(entry.site, entry.withdrawal) for entry in found.erased] == [("knee", "W-1")]
    assert wrapped.encode() not in everything(tmp_path), "overwritten where it lay, too"
    assert store.erase(["knee"], "W-1") == [], "repeating it changes nothing"
    assert len(store.erased()) == 1


def test_copy_out_of_reach_is_named_and_made_good(tmp_path: Path) -> None:
    """A copy that is away when a site is erased is named, and brought up to date when it is back."""
    store = KeyStore(tmp_path / "keys", POLICY)
    assert store.sites is not None
    store.sites.key("knee")
    disk, away = tmp_path / "disk", tmp_path / "away"
    disk.mkdir()
    store.add_copy(disk / "keys.json")
    disk.rename(away)
    (unreached,) = store.erase(["knee"], "W-1")
    assert str(disk / "keys.json") in unreached
    away.rename(disk)
    assert KeyStore(tmp_path / "keys", POLICY).write_copies() == []
    assert KeyCopy.read(disk / "keys.json").keys == {}


def test_an_old_copy_does_not_bring_a_destroyed_key_back(tmp_path: Path) -> None:
    """Importing a copy from before an erasure puts back what is missing, but not the erased site's key."""
    store = KeyStore(tmp_path / "keys", POLICY)
    assert store.sites is not None
    brain = store.sites.key("brain")
    store.sites.key("knee")
    store.add_copy(tmp_path / "old.json")
    store.forget_copy(tmp_path / "old.json")
    store.erase(["knee"], "W-1")
    store.sites.destroy(["brain"])
    assert store.put_back(KeyCopy.read(tmp_path / "old.json")) == ["brain"]
    assert store.sites.key("brain") == brain
    assert store.sites.sites() == ["brain"]
