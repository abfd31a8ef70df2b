"""Checkpoints: what the ledger was at a moment, signed, in a few hundred bytes that others can keep.

Whoever keeps one can tell later whether the ledger still begins with what it held then. The idea is that of
the signed tree head of RFC 9162, §4.10; the envelope is DSSE.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from reconsent.errors import LedgerError, SignatureError
from unlearning.ledger.canonical import canonical, parse
from unlearning.ledger.merkle import continues
from unlearning.signing import PublicKey, SigningKey, sign_envelope, verify_envelope

CHECKPOINT_TYPE: Final = "application/vnd.reconsent.checkpoint.v1+json"

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a ledger was.

    Attributes
    ----------
    ledger
        Id of the consortium's ledger: 32 hexadecimal digits, drawn when it was begun.
    size
        Number of entries.
    root
        Root hash of their Merkle tree, hexadecimal.
    at
        When the last of them was written, UTC, ISO 8601.
    """

    ledger: str
    size: int
    root: str
    at: str

    def sign(self, key: SigningKey) -> dict[str, Any]:
        """The DSSE envelope, signed by ``key``."""
        return sign_envelope(canonical(asdict(self)), CHECKPOINT_TYPE, [key])

    def signature(self, key: SigningKey) -> str:
        """The base64 signature alone; the rest of the envelope can be put together again."""
        return str(self.sign(key)["signatures"][0]["sig"])

    def envelope(self, key: PublicKey, signature: str) -> dict[str, Any]:
        """The envelope again, from a :meth:`signature` by ``key``."""
        payload = binascii.b2a_base64(canonical(asdict(self)), newline=False).decode()
        signatures = [{"keyid": key.key_id, "sig": signature}]
        return {"payload": payload, "payloadType": CHECKPOINT_TYPE, "signatures": signatures}

    def holds(self, key: PublicKey, signature: str) -> bool:
        """Whether ``signature`` is one of this checkpoint by ``key``."""
        try:
            verify_envelope(self.envelope(key, signature), [key], payload_type=CHECKPOINT_TYPE)
        except SignatureError:
            return False
        return True


def read_checkpoint(envelope: Mapping[str, Any], keys: Sequence[PublicKey]) -> Checkpoint:
    """The checkpoint in an envelope that one of ``keys`` signed.

    Raises
    ------
    SignatureError
        If none of them did.
    LedgerError
        If what was signed is no checkpoint.
    """
    value = parse(verify_envelope(envelope, keys, payload_type=CHECKPOINT_TYPE))
    try:
        found = Checkpoint(**value)
    except TypeError:
        raise LedgerError("The envelope holds no checkpoint.", "Give the right file.") from None
    sound = isinstance(found.size, int) and found.size >= 1 and _HASH.fullmatch(str(found.root))
    if not sound or not isinstance(found.ledger, str) or not isinstance(found.at, str):
        raise LedgerError("The envelope holds a malformed checkpoint.", "Give the right file.")
    return found


def follows(older: Checkpoint, newer: Checkpoint, proof: Sequence[str]) -> bool:
    """Whether ``proof`` (hexadecimal hashes) shows that ``newer`` goes on from ``older``."""
    try:
        hashes = [bytes.fromhex(text) for text in proof]
    except (ValueError, TypeError):
        return False
    roots = bytes.fromhex(older.root), bytes.fromhex(newer.root)
    return older.ledger == newer.ledger and continues(older.size, roots[0], newer.size, roots[1], hashes)
