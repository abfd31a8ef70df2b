"""Names that only the consortium can resolve."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from reconsent.errors import SignatureError
from reconsent.files import read_or_make_secret

SECRET_BYTES = 32
_DIGITS = 32


def pseudonym(secret: bytes, consortium: str, site: str) -> str:
    """A site's name in documents that leave the consortium: HMAC-SHA-256 (RFC 2104) of its name, 128 bits.

    A plain hash would not do: names of hospitals can be tried one by one.

    Parameters
    ----------
    secret
        The consortium's; see :func:`load_or_create_secret`.
    consortium
        Its id, so that one hospital has different names in two consortia that share a secret.
    site
        The site's name.
    """
    message = f"{len(consortium)}:{consortium}{site}".encode()
    return f"site-{hmac.new(secret, message, hashlib.sha256).hexdigest()[:_DIGITS]}"


def load_or_create_secret(path: Path) -> bytes:
    """The consortium's secret of 32 bytes; made (mode 600) if there is none.

    Raises
    ------
    SignatureError
        If it cannot be read or written, or is not one.
    """
    try:
        secret = read_or_make_secret(path, SECRET_BYTES)
    except OSError as error:
        raise SignatureError(
            f"The secret of the pseudonyms {path} cannot be used: {error.strerror}.",
            "Check its directory; without the old secret, former pseudonyms cannot be resolved.",
        ) from None
    if len(secret) != SECRET_BYTES:
        raise SignatureError(
            f"{path} has {len(secret)} bytes, not {SECRET_BYTES}.", "Restore it from its backup."
        )
    return secret
