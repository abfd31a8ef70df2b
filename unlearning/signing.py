"""Keys that sign, and what they signed: Ed25519 in DSSE envelopes.

The signature is that of the DSSE protocol, version 1 (https://github.com/secure-systems-lab/dsse), which
signs the payload together with its type; both the curve (RFC 8032) and the envelope come from libraries.
"""

from __future__ import annotations

import copy
import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined] # no __all__ there

from reconsent.errors import SignatureError
from reconsent.files import sync_directory


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a signature is checked with.

    Attributes
    ----------
    raw
        The 32 bytes of the Ed25519 point (RFC 8032, §5.1.5).
    key_id
        SHA-256 of the key's SubjectPublicKeyInfo (DER), hexadecimal: what people compare by telephone.
    """

    raw: bytes
    key_id: str = field(init=False)

    def __post_init__(self) -> None:
        spki = self._key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        object.__setattr__(self, "key_id", hashlib.sha256(spki).hexdigest())

    @classmethod
    def from_pem(cls, content: bytes, where: str = "This") -> PublicKey:
        """Read a PEM file's content; ``where`` names it in errors.

        Raises
        ------
        SignatureError
            If it is no Ed25519 public key.
        """
        try:
            key = load_pem_public_key(content)
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise SignatureError(
                f"{where} is not an Ed25519 public key in PEM.", "Get it from `reconsent ledger key`."
            )
        return cls(key.public_bytes(Encoding.Raw, PublicFormat.Raw))

    @classmethod
    def from_hex(cls, text: str) -> PublicKey:
        """Read 64 hexadecimal digits, as they are in messages and ledgers.

        Raises
        ------
        SignatureError
            If it is anything else.
        """
        try:
            return cls(bytes.fromhex(text))
        except (ValueError, TypeError):
            raise SignatureError(f"'{str(text)[:80]}' is not an Ed25519 public key of 32 bytes.") from None

    def pem(self) -> bytes:
        """SubjectPublicKeyInfo in PEM, as OpenSSL reads it."""
        return self._key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def _key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)


class SigningKey:
    """A private key; :attr:`public` is what others need."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        # The library's own key id depends on its formats; ours can be computed with OpenSSL alone.
        self._signer = CryptoSigner(private, _library_key(self.public))

    @property
    def key_id(self) -> str:
        """See :attr:`PublicKey.key_id`."""
        return self.public.key_id

    @property
    def signer(self) -> CryptoSigner:
        """The key as the DSSE library takes it."""
        return self._signer

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key."""
        return cls(Ed25519PrivateKey.generate())

    def pem(self) -> bytes:
        """The private key, PKCS #8 in PEM, without a passphrase."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_key(path: Path) -> SigningKey:
    """Read a private key.

    Raises
    ------
    SignatureError
        If the file is missing, is no Ed25519 private key in PEM, or everybody may read it.
    """
    try:
        content = path.read_bytes()
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise SignatureError(
            f"The signing key {path} cannot be read: {error.strerror}.", "Restore it from its backup."
        ) from None
    if mode & 0o007:
        raise SignatureError(
            f"The signing key {path} may be read or written by everybody (mode {mode:o}).",
            f"Find out who had access to it; then: chmod 600 {path}",
        )
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(
            f"{path} is not an Ed25519 private key in PEM without a passphrase.",
            "Restore it from its backup.",
        )
    return SigningKey(key)


def load_or_create_key(path: Path) -> SigningKey:
    """Read the private key at ``path``; make one (mode 600) if there is none.

    Two processes that do so at once end with the same key.

    Raises
    ------
    SignatureError
        As :func:`load_key`, or if the key cannot be written.
    """
    if not path.exists():
        try:
            _write_new(path, SigningKey.generate().pem())
        except OSError as error:
            raise SignatureError(
                f"The signing key {path} cannot be written: {error.strerror}.", "Check its directory."
            ) from None
    return load_key(path)


def load_public_key(path: Path) -> PublicKey:
    """Read a public key in PEM.

    Raises
    ------
    SignatureError
        If the file cannot be read, or is no Ed25519 public key.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SignatureError(
            f"The public key {path} cannot be read: {error.strerror}.", "Check the path."
        ) from None
    return PublicKey.from_pem(content, str(path))


def sign_envelope(payload: bytes, payload_type: str, keys: Sequence[SigningKey]) -> dict[str, Any]:
    """A DSSE envelope of ``payload`` with a signature by each key.

    Parameters
    ----------
    payload
        What is signed; JSON should be canonical, so that it can be compared.
    payload_type
        What it is, such as ``application/vnd.in-toto+json``; signed with it, so that a signature for one
        purpose is none for another.
    keys
        Who signs; one at least.

    Returns
    -------
    A JSON value: ``payload`` (base64), ``payloadType``, ``signatures`` (``keyid`` and base64 ``sig`` each).

    Raises
    ------
    SignatureError
        If there is no key.
    """
    if not keys:
        raise SignatureError("Nothing can be signed without a key.", "Name a key.")
    envelope = Envelope(payload, payload_type, {})
    for key in keys:
        envelope.sign(key.signer)
    return dict(envelope.to_dict())


def verify_envelope(
    envelope: Mapping[str, Any],
    public_keys: Sequence[PublicKey],
    threshold: int = 1,
    *,
    payload_type: str | None = None,
) -> bytes:
    """The payload of a DSSE envelope, if ``threshold`` different keys of ``public_keys`` signed it.

    Signatures by other keys, and wrong ones, count for nothing but do no harm.

    Parameters
    ----------
    envelope
        As of :func:`sign_envelope`.
    public_keys
        Who is trusted. The same key twice counts once.
    threshold
        How many of them must have signed.
    payload_type
        What the payload must say it is; ``None`` if that is checked elsewhere.

    Raises
    ------
    SignatureError
        If it is no envelope, is of another type, or too few have signed it.
    """
    try:
        parsed = Envelope.from_dict(copy.deepcopy(dict(envelope)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SignatureError(
            f"This is not a signed envelope: {type(error).__name__}: {error}.", "Get the file again."
        ) from None
    if payload_type is not None and parsed.payload_type != payload_type:
        raise SignatureError(
            f"The envelope holds '{parsed.payload_type}', not '{payload_type}'.", "Give the right file."
        )
    trusted = {key.key_id: _library_key(key) for key in public_keys}
    if not 1 <= threshold <= len(trusted):
        raise SignatureError(
            f"{threshold} signatures are wanted, and {len(trusted)} different keys are trusted.",
            "Give as many public keys, or want fewer signatures.",
        )
    try:
        parsed.verify(list(trusted.values()), threshold)
    except VerificationError:
        signers = ", ".join(f"{key_id[:16]}…" for key_id in parsed.signatures) or "nobody"
        known = ", ".join(f"{key_id[:16]}…" for key_id in trusted)
        raise SignatureError(
            f"Fewer than {threshold} of the trusted keys ({known}) have signed this; it names {signers}.",
            "Either it was altered, or another key signed it: compare the fingerprints with its maker.",
        ) from None
    return bytes(parsed.payload)


def _library_key(key: PublicKey) -> SSlibKey:
    return SSlibKey(key.key_id, "ed25519", "ed25519", {"public": key.raw.hex()})


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that nobody else can read and that appears whole, unless there is one by then."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link, unlike a rename, never replaces a key that another process has just made.
            path.hardlink_to(temporary)
        except FileExistsError:
            return
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
