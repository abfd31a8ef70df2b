"""Keys and envelopes."""

from __future__ import annotations

import base64
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from reconsent.errors import SignatureError
from unlearning.signing import (
    PublicKey,
    SigningKey,
    load_key,
    load_or_create_key,
    load_public_key,
    sign_envelope,
    verify_envelope,
)

TYPE = "application/vnd.test+json"
NO_KEY = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    """The first use makes a key that only its owner can read; the next uses find the same one."""
    path = tmp_path / "keys" / "signing.pem"
    first = load_or_create_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create_key(path).key_id == load_key(path).key_id == first.key_id
    assert [file.name for file in path.parent.iterdir()] == ["signing.pem"]


def test_first_use_by_many_at_once(tmp_path: Path) -> None:
    """However many make the key at once, all of them have the same."""
    path = tmp_path / "signing.pem"
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: load_or_create_key(path).key_id, range(32)))
    assert found == {load_key(path).key_id}


def test_key_id_is_the_one_openssl_computes(tmp_path: Path, key: SigningKey) -> None:
    """The key id is the SHA-256 of the DER that OpenSSL makes of the public key."""
    path = tmp_path / "public.pem"
    path.write_bytes(key.public.pem())
    assert load_public_key(path) == key.public
    command = ["openssl", "pkey", "-pubin", "-in", str(path), "-outform", "DER"]
    der = subprocess.run(command, check=True, capture_output=True).stdout
    digest = subprocess.run(["sha256sum"], input=der, check=True, capture_output=True).stdout
    assert digest.decode().split()[0] == key.key_id


@pytest.mark.parametrize("content", [b"", b"no key", NO_KEY])
def test_unusable_keys_are_explained(tmp_path: Path, content: bytes) -> None:
    """A file that is no key is refused with its name, as private and as public key."""
    path = tmp_path / "bad.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    for load in (load_key, load_public_key, load_or_create_key):
        with pytest.raises(SignatureError, match=r"bad\.pem"):
            load(path)
    assert path.read_bytes() == content


def test_key_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    """A private key that others could have copied signs nothing any more."""
    path = tmp_path / "signing.pem"
    load_or_create_key(path)
    path.chmod(0o604)
    with pytest.raises(SignatureError, match="everybody"):
        load_key(path)


def test_missing_key(tmp_path: Path) -> None:
    """Reading, unlike making, does not replace a key that is gone."""
    with pytest.raises(SignatureError, match="cannot be read"):
        load_key(tmp_path / "gone.pem")


def test_signature_is_that_of_the_dsse_protocol(key: SigningKey) -> None:
    """The signature is plain Ed25519 over the protocol's encoding, checked with another library."""
    envelope = sign_envelope(b"hello", TYPE, [key])
    signed = b"DSSEv1 25 application/vnd.test+json 5 hello"
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    Ed25519PublicKey.from_public_bytes(key.public.raw).verify(signature, signed)
    assert envelope["signatures"][0]["keyid"] == key.key_id
    assert verify_envelope(envelope, [key.public], payload_type=TYPE) == b"hello"


def _other_payload(envelope: dict[str, Any]) -> None:
    envelope["payload"] = base64.b64encode(b"hellO").decode()


def _other_type(envelope: dict[str, Any]) -> None:
    envelope["payloadType"] += "x"


def _other_signature(envelope: dict[str, Any]) -> None:
    envelope["signatures"][0]["sig"] = base64.b64encode(os.urandom(64)).decode()


def _no_signature(envelope: dict[str, Any]) -> None:
    envelope["signatures"] = []


def _no_payload(envelope: dict[str, Any]) -> None:
    del envelope["payload"]


def _signature_twice(envelope: dict[str, Any]) -> None:
    envelope["signatures"] *= 2


@pytest.mark.parametrize(
    "change", [_other_payload, _other_type, _other_signature, _no_signature, _no_payload, _signature_twice]
)
def test_altered_envelope_is_refused(key: SigningKey, change: Any) -> None:
    """Whatever of an envelope is changed, it is refused."""
    envelope = sign_envelope(b"hello", TYPE, [key])
    change(envelope)
    with pytest.raises(SignatureError):
        verify_envelope(envelope, [key.public])


def test_other_keys_signature_under_ones_name(key: SigningKey) -> None:
    """A signature that claims a trusted key's id but is another key's counts for nothing."""
    forged = sign_envelope(b"hello", TYPE, [SigningKey.generate()])
    forged["signatures"][0]["keyid"] = key.key_id
    with pytest.raises(SignatureError, match="have signed"):
        verify_envelope(forged, [key.public])


def test_threshold_counts_different_keys(key: SigningKey) -> None:
    """Two signatures mean two different trusted keys; a stranger's third does no harm."""
    second, stranger = SigningKey.generate(), SigningKey.generate()
    both = sign_envelope(b"x", TYPE, [stranger, key, second])
    assert verify_envelope(both, [key.public, second.public], 2) == b"x"
    alone = sign_envelope(b"x", TYPE, [key])
    for trusted in ([key.public, second.public], [key.public, key.public]):
        with pytest.raises(SignatureError):
            verify_envelope(alone, trusted, 2)
    with pytest.raises(SignatureError, match="trusted"):
        verify_envelope(alone, [], 1)
    with pytest.raises(SignatureError, match="trusted"):
        verify_envelope(alone, [key.public], 0)


def test_wrong_type_is_told(key: SigningKey) -> None:
    """An envelope signed for one purpose is none for another."""
    with pytest.raises(SignatureError, match="holds"):
        verify_envelope(sign_envelope(b"x", TYPE, [key]), [key.public], payload_type="other")


def test_verifying_leaves_the_envelope_as_it_is(key: SigningKey) -> None:
    """An envelope can be verified twice."""
    envelope = sign_envelope(b"x", TYPE, [key])
    for _ in range(2):
        assert verify_envelope(envelope, [key.public]) == b"x"


def test_nobody_signs_nothing() -> None:
    """An envelope without a signer is not made."""
    with pytest.raises(SignatureError):
        sign_envelope(b"x", TYPE, [])


def test_rfc_8032_test_vector() -> None:
    """The first key of RFC 8032 §7.1 has the public half that is printed there."""
    seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)))
    assert key.public == PublicKey.from_hex(public)
    for wrong in ("", "zz", public[:-2]):
        with pytest.raises(SignatureError):
            PublicKey.from_hex(wrong)
