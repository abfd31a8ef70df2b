"""Public keys of SuperNodes, and what identifies one."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
    load_ssh_public_key,
)

from reconsent.errors import SiteError


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of the key's SubjectPublicKeyInfo (DER), hexadecimal: the same in whatever form it comes.

    Parameters
    ----------
    public_key
        As OpenSSH text (``ecdsa-sha2-nistp384 AAAA…``), PEM or DER.

    Raises
    ------
    SiteError
        If it is none of them.
    """
    spki = _load(public_key).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _load(content: bytes) -> PublicKeyTypes:
    try:
        if content.lstrip().startswith(b"-----BEGIN PUBLIC KEY"):
            return load_pem_public_key(content)
        if content.lstrip()[:6] in (b"ssh-rs", b"ssh-ed", b"ecdsa-"):
            return load_ssh_public_key(content)
        return load_der_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SiteError(
            f"This is not a public key: {error}.",
            "Give the .pub file of `reconsent site key` (OpenSSH, PEM or DER), never the private key.",
        ) from None
