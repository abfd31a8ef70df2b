"""Key pairs of SuperNodes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from deploy.keys import node_key, public_key_fingerprint
from reconsent.errors import DeployError


def test_key_is_what_flower_wants(tmp_path: Path) -> None:
    """P-384, OpenSSH format, private to its owner, and the public file is its other half."""
    key = node_key(tmp_path / "clinic", comment="clinic")
    private = load_ssh_private_key(key.private.read_bytes(), password=None)
    public = load_ssh_public_key(key.public.read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP384R1)
    assert private.public_key() == public
    assert key.private.stat().st_mode & 0o777 == 0o600
    assert key.public.read_text().endswith(" clinic\n")


def test_fingerprint_is_of_the_key_not_of_the_file(tmp_path: Path) -> None:
    """OpenSSH, PEM and DER of one key give one fingerprint: SHA-256 of the SubjectPublicKeyInfo."""
    key = node_key(tmp_path / "clinic")
    public = load_ssh_public_key(key.public.read_bytes())
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "der").write_bytes(der)
    expected = hashlib.sha256(der).hexdigest()
    assert key.fingerprint == expected
    for name in ("clinic.pub", "pem", "der"):
        assert public_key_fingerprint(tmp_path / name) == expected


def test_key_is_made_once(tmp_path: Path) -> None:
    """The second call returns the same pair and writes nothing; another site gets another key."""
    first = node_key(tmp_path / "a")
    before = (first.private.read_bytes(), first.public.stat().st_mtime_ns)
    assert node_key(tmp_path / "a") == first
    assert (first.private.read_bytes(), first.public.stat().st_mtime_ns) == before
    assert node_key(tmp_path / "b").fingerprint != first.fingerprint


@pytest.mark.parametrize("left_behind", [None, b"", b"ecdsa-sha2-nistp384 AAAA"])
def test_half_made_pair_is_completed(tmp_path: Path, left_behind: bytes | None) -> None:
    """A public file that is missing or broken is written again from the private one."""
    key = node_key(tmp_path / "a")
    key.public.unlink()
    if left_behind is not None:
        key.public.write_bytes(left_behind)
    assert node_key(tmp_path / "a").fingerprint == key.fingerprint
    assert public_key_fingerprint(key.public) == key.fingerprint


def test_lone_public_file_is_replaced(tmp_path: Path) -> None:
    """A public file without private key belongs to nobody: a new pair takes its place."""
    old = node_key(tmp_path / "a")
    old.private.unlink()
    new = node_key(tmp_path / "a")
    assert new.fingerprint != old.fingerprint
    assert public_key_fingerprint(new.public) == new.fingerprint


def test_damaged_private_key_is_not_replaced(tmp_path: Path) -> None:
    """It may be the only copy of an identity: it is named, and left as it is."""
    (tmp_path / "a").write_bytes(b"nonsense")
    with pytest.raises(DeployError, match="is not a private key"):
        node_key(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"nonsense"


def test_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Flower wants a key on a NIST curve."""
    key = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "a").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    with pytest.raises(DeployError, match="elliptic curve"):
        node_key(tmp_path / "a")


def test_private_key_is_no_public_key(tmp_path: Path) -> None:
    """Who names the private file by mistake is told so."""
    key = node_key(tmp_path / "a")
    with pytest.raises(DeployError, match="not a public key"):
        public_key_fingerprint(key.private)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_openssh_reads_the_key(tmp_path: Path) -> None:
    """OpenSSH itself derives the same public key, and a key it made is taken as it is."""
    key = node_key(tmp_path / "ours")
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", key.private], capture_output=True, text=True, check=True
    ).stdout
    assert derived.split()[:2] == key.public.read_text().split()[:2]
    theirs = tmp_path / "theirs"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", theirs], check=True)
    before = theirs.read_bytes()
    assert node_key(theirs).fingerprint == public_key_fingerprint(tmp_path / "theirs.pub")
    assert theirs.read_bytes() == before
