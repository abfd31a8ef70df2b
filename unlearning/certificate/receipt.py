"""A site's receipt: what its own log and witness file say, signed with the key of its node.

The operator makes the certificate; the receipt is the one part of the bundle that the operator cannot make.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined] # no __all__ there

from reconsent.errors import LedgerError, SignatureError
from unlearning.ledger.canonical import canonical, parse
from unlearning.ledger.checkpoints import Checkpoint

RECEIPT_TYPE: Final = "application/vnd.reconsent.site-receipt.v1+json"
FORMAT: Final = "reconsent-site-receipt/1"

_AGAIN = "Ask the site for a new one: `reconsent site receipt`."


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a site signed.

    Attributes
    ----------
    fingerprint
        SHA-256 over the SubjectPublicKeyInfo of the key, hexadecimal: what it was enrolled by.
    checkpoint
        The newest of the ledger that the site was sent; ``None`` if it has kept none.
    body
        Everything it says.
    """

    fingerprint: str
    checkpoint: Checkpoint | None
    body: Mapping[str, Any]


def sign_receipt(body: Mapping[str, Any], key: EllipticCurvePrivateKey) -> bytes:
    """The signed file.

    Parameters
    ----------
    body
        JSON values without names: at least ``checkpoint``, a mapping with the fields of
        :class:`~unlearning.ledger.checkpoints.Checkpoint`, or ``None``.
    key
        The node's, P-384.
    """
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    envelope = Envelope(canonical({**body, "format": FORMAT, "site_key": pem}), RECEIPT_TYPE, {})
    envelope.sign(CryptoSigner(key, _library_key(key.public_key())))
    return canonical(envelope.to_dict()) + b"\n"


def read_receipt(content: bytes) -> Receipt:
    """What a receipt says, if the key it names has signed it; whose key that is, the certificate says.

    Raises
    ------
    SignatureError
        If it was altered, or is none.
    """
    try:
        envelope = Envelope.from_dict(json.loads(content))
        body = parse(envelope.payload)
        key = load_pem_public_key(body["site_key"].encode())
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
            raise ValueError("its key is not one of a node")
        if (envelope.payload_type, body["format"]) != (RECEIPT_TYPE, FORMAT):
            raise ValueError("it is of another kind")
        known = _library_key(key)
        envelope.verify([known], 1)
        checkpoint = None if body["checkpoint"] is None else Checkpoint(**body["checkpoint"])
    except VerificationError:
        raise SignatureError("The site's key has not signed this receipt.", _AGAIN) from None
    except (ValueError, KeyError, TypeError, AttributeError, LedgerError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"This is no receipt of a site: {error}.", _AGAIN) from None
    return Receipt(known.keyid, checkpoint, body)


def agrees(receipt: Receipt, checkpoints: Sequence[Checkpoint]) -> bool:
    """Whether the ledger the site saw is the beginning of the one that ``checkpoints`` are of."""
    seen = receipt.checkpoint
    return seen is None or any(
        (one.ledger, one.size, one.root) == (seen.ledger, seen.size, seen.root) for one in checkpoints
    )


def _library_key(key: EllipticCurvePublicKey) -> SSlibKey:
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return SSlibKey(hashlib.sha256(spki).hexdigest(), "ecdsa", "ecdsa-sha2-nistp384", {"public": pem})
