"""A node's key pair: how a SuperLink knows which site it is talking to."""

from __future__ import annotations

import hashlib
import os
import stat
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

from reconsent.errors import ConfigError
from reconsent.files import sync_directory


def make_key_pair(path: Path) -> str:
    """Make a P-384 key: the private half at ``path`` (mode 600), the public one at ``path`` + ``.pub``.

    Both are in OpenSSH's format, which Flower reads. The private key has no passphrase, since a node starts
    unattended; it is protected by the file's mode.

    Returns
    -------
    The fingerprint; see :func:`fingerprint`.

    Raises
    ------
    ConfigError
        If one of the files exists (a key is never overwritten), or the directory is not there or not
        writable.
    """
    public_path = path.with_name(path.name + ".pub")
    for existing in (path, public_path):
        if existing.exists() or existing.is_symlink():
            raise ConfigError(
                f"{existing} exists, and a key is never overwritten.",
                "Choose another name; a site that replaces its key must have the new one registered.",
            )
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" reconsent\n"
    try:
        _write_new(path, private, 0o600)
        _write_new(public_path, public, 0o644)
        sync_directory(path.absolute().parent)
    except OSError as error:
        raise ConfigError(f"The key cannot be written to {path}: {error}.", "Check the directory.") from None
    return fingerprint(key.public_key())


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a node's private key, and refuse one that others can read.

    Raises
    ------
    ConfigError
        If it is missing, is readable by others, has a passphrase, or is no P-384 key in OpenSSH's format.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"There is no key file {path}.", f"Make one with `reconsent site key {path}`."
        ) from None
    except OSError as error:
        raise ConfigError(f"The key file {path} cannot be read: {error}.", "Check it.") from None
    if mode & 0o077:
        raise ConfigError(
            f"The key file {path} is open to others (mode {mode:03o}).", f"Run: chmod 600 {path}"
        )
    try:
        key = load_ssh_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{path} is no private key in OpenSSH's format without a passphrase: {error}.",
            "Make one with `reconsent site key`; the file that ends in .pub is the public half.",
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(f"{path} is not a P-384 key.", "Make one with `reconsent site key`.")
    return key


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 over the key's SubjectPublicKeyInfo in DER, hexadecimal: what the operator enrols it by."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        # Whatever the umask is, the owner can read it and nobody else more than `mode` says.
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
