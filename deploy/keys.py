"""Key pairs of SuperNodes: P-384, in OpenSSH's format, as Flower reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from reconsent.errors import DeployError, SiteError
from reconsent.files import write_atomically, write_private
from server.node_keys import fingerprint
from server.persistence.state import explaining_os_errors


@dataclass(frozen=True, slots=True)
class NodeKey:
    """A SuperNode's key pair.

    Attributes
    ----------
    private, public
        Its files; the public one is the private one's name with ``.pub``.
    fingerprint
        SHA-256 of the public key's SubjectPublicKeyInfo (DER), hexadecimal.
    """

    private: Path
    public: Path
    fingerprint: str


def node_key(private: Path, *, comment: str = "") -> NodeKey:
    """The key pair in ``private`` and ``private.pub``; made if there is none.

    A missing or foreign public file is written again from the private one: that is what a run that was
    killed in between leaves behind.

    Parameters
    ----------
    private
        File of the private key, readable by its owner only.
    comment
        Written behind the public key; the site's name.

    Raises
    ------
    DeployError
        If the private file is no P-256, P-384 or P-521 key in OpenSSH's format without a password.
    StateError
        If the directory cannot be written.
    """
    public = private.with_name(f"{private.name}.pub")
    with explaining_os_errors(f"The directory of keys {private.parent}"):
        private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if private.exists():
            key = _load(private)
        else:
            key = ec.generate_private_key(ec.SECP384R1())
            content = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            write_private(private, content)
        text = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        own = fingerprint(text)
        if not public.is_file() or _fingerprint_in(public) != own:
            write_atomically(public, text + (f" {comment}" if comment else "").encode() + b"\n")
    return NodeKey(private, public, own)


def public_key_fingerprint(path: Path) -> str:
    """SHA-256 of the SubjectPublicKeyInfo (DER) of the public key in a file: OpenSSH, PEM or DER.

    Raises
    ------
    DeployError
        If the file is missing or holds no public key.
    """
    try:
        return fingerprint(path.read_bytes())
    except FileNotFoundError:
        raise DeployError(f"There is no public key {path}.", "Check the path.") from None
    except SiteError as error:
        raise DeployError(f"{path}: {error.problem}", error.remedy) from None


def _fingerprint_in(public: Path) -> str:
    try:
        return public_key_fingerprint(public)
    except DeployError:
        return ""


def _load(private: Path) -> ec.EllipticCurvePrivateKey:
    remedy = "Restore it from a backup; or remove it, and enrol the site's node anew with a new key."
    try:
        key = load_ssh_private_key(private.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DeployError(
            f"{private} is not a private key without password in OpenSSH's format: {error}.", remedy
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DeployError(f"{private} is not a key on an elliptic curve, as Flower wants it.", remedy)
    return key
