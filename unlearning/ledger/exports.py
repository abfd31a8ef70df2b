"""A ledger as a file that anybody can check without the server: JSON lines.

The first line says what it is and names the key; then comes a line for each entry: its content as it was
hashed, the root of the tree with it, and the signature.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reconsent.errors import LedgerError
from unlearning.ledger.canonical import canonical
from unlearning.ledger.checkpoints import Checkpoint
from unlearning.ledger.entries import Row
from unlearning.signing import PublicKey

FORMAT: Final = "reconsent-ledger/1"


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """A checkpoint as others keep it: the envelope, and the key it names."""

    envelope: Mapping[str, Any]
    key: PublicKey


def ledger_lines(rows: Iterable[Row], key: PublicKey) -> Iterator[bytes]:
    """The lines of an export, each with its line feed."""
    yield canonical({"format": FORMAT, "key": key.raw.hex()}) + b"\n"
    for row in rows:
        fields = {"content": row.content, "number": row.number, "root": row.root, "signature": row.signature}
        yield canonical(fields) + b"\n"


def exported_rows(path: Path) -> Iterator[Row]:
    """The entries of an exported ledger, one at a time; nothing of it is checked yet.

    Raises
    ------
    LedgerError
        If the file cannot be read, or is no exported ledger.
    """
    remedy = "Export it again: `reconsent ledger export FILE`."
    try:
        with path.open("rb") as file:
            header = _line(file.readline(), path, 1)
            if header.get("format") != FORMAT:
                raise LedgerError(f"{path} is not an exported ledger ({FORMAT}).", remedy)
            for number, line in enumerate(file, start=2):
                fields = _line(line, path, number)
                try:
                    row = Row(
                        int(fields["number"]),
                        str(fields["content"]),
                        str(fields["root"]),
                        str(fields["signature"]),
                    )
                except (KeyError, TypeError, ValueError):
                    raise LedgerError(f"Line {number} of {path} is no entry of a ledger.", remedy) from None
                yield row
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None


def checkpoint_file(checkpoint: Checkpoint, envelope: Mapping[str, Any], key: PublicKey) -> bytes:
    """A checkpoint to keep elsewhere, as one line of JSON; ``checkpoint`` in clear is for people only."""
    clear = {"at": checkpoint.at, "ledger": checkpoint.ledger, "size": checkpoint.size}
    return canonical({"checkpoint": clear, "envelope": envelope, "key": key.raw.hex()}) + b"\n"


def read_checkpoint_file(path: Path) -> KeptCheckpoint:
    """Read what :func:`checkpoint_file` wrote, or what a site keeps; the signature is not checked yet.

    Raises
    ------
    LedgerError
        If the file cannot be read, or holds no checkpoint.
    SignatureError
        If what it names is no key.
    """
    try:
        value = json.loads(path.read_bytes())
        envelope, key = value["envelope"], value["key"]
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None
    except (ValueError, KeyError, TypeError):
        raise LedgerError(
            f"{path} holds no checkpoint.", "`reconsent ledger export --checkpoint FILE` writes one."
        ) from None
    return KeptCheckpoint(envelope, PublicKey.from_hex(str(key)))


def _line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise LedgerError(f"Line {number} of {path} is not JSON.", "Get the file again.")
    return value
