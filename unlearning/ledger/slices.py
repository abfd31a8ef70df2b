"""A part of the ledger that can be checked by itself: entries, proofs that they are in it, and checkpoints.

JSON lines, each canonical. First what it is; then signed checkpoints of growing size, each but the first with
the proof that it continues the one before (RFC 9162, §2.1.4); then entries, each with the proof that it is in
the ledger of the last checkpoint (§2.1.3). An entry that names others is given by its hash alone: whoever has
the whole ledger (``reconsent ledger export``) can compare it.

What is given is in the ledger as it is given. That nothing else is in the ledger about the matter, only the
whole ledger shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reconsent.errors import LedgerError
from unlearning.ledger.canonical import canonical, parse
from unlearning.ledger.checkpoints import Checkpoint, follows, read_checkpoint
from unlearning.ledger.entries import KEY_REPLACED, LEDGER_BEGUN, Entry
from unlearning.ledger.merkle import includes, leaf_hash
from unlearning.signing import PublicKey

FORMAT: Final = "reconsent-ledger-slice/1"

_REMEDY = "Ask the operator for a new certificate, and for the whole ledger."


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenEntry:
    """An entry of a slice.

    Attributes
    ----------
    entry
        The entry.
    inclusion
        Hexadecimal hashes: the proof for the ledger of the last checkpoint.
    withheld
        Only its hash is given.
    """

    entry: Entry
    inclusion: Sequence[str]
    withheld: bool


@dataclass(frozen=True, slots=True)
class Slice:
    """What a slice that holds says.

    Attributes
    ----------
    checkpoints
        From the oldest to the newest.
    entries
        Those that are given in full, by number.
    withheld
        How many are given by their hash alone.
    """

    checkpoints: tuple[Checkpoint, ...]
    entries: tuple[Entry, ...]
    withheld: int


def slice_lines(
    about: Mapping[str, str],
    checkpoints: Iterable[tuple[Mapping[str, Any], Sequence[str]]],
    entries: Iterable[GivenEntry],
) -> Iterator[bytes]:
    """The lines of a slice, each with its line feed.

    Parameters
    ----------
    about
        What the first line says beside the format: the ledger's id, and what the slice is about.
    checkpoints
        Envelopes by growing size, each with the proof that it continues the one before (hexadecimal hashes).
    entries
        By number.
    """
    yield canonical({"format": FORMAT, **about}) + b"\n"
    for envelope, proof in checkpoints:
        yield canonical({"checkpoint": envelope, "consistency": list(proof)}) + b"\n"
    for given in entries:
        content = given.entry.content()
        yield (
            canonical(
                {
                    "content": None if given.withheld else content.decode(),
                    "inclusion": list(given.inclusion),
                    "leaf": leaf_hash(content).hex(),
                    "number": given.entry.number,
                }
            )
            + b"\n"
        )


def read_slice(content: bytes, key: PublicKey, *, ledger: str, size: int, root: str) -> Slice:
    """Check every proof and signature of a slice.

    Parameters
    ----------
    content
        Its lines.
    key
        The key that signs the ledger at the last checkpoint; former ones must be named by entries in it.
    ledger, size, root
        What the last checkpoint must be of.

    Raises
    ------
    LedgerError
        If it is no slice, or a proof or a signature does not hold.
    SignatureError
        If a checkpoint was signed by a key that did not sign the ledger then.
    """
    lines = [parse(line) for line in content.splitlines()]
    if not lines or not isinstance(lines[0], dict) or lines[0].get("format") != FORMAT:
        raise LedgerError(f"This is not a part of a ledger ({FORMAT}).", _REMEDY)
    if lines[0].get("ledger") != ledger:
        raise LedgerError("It is a part of another ledger than the certificate names.", _REMEDY)
    try:
        given = [line for line in lines[1:] if "number" in line]
        entries = [_entry(line, size, bytes.fromhex(root)) for line in given]
        signers = _signers([entry for entry in entries if entry is not None], ledger)
        if signers[-1][1] != key:
            raise LedgerError("Its last key is not the one that signed the certificate.", _REMEDY)
        checkpoints = _checkpoints([line for line in lines[1:] if "checkpoint" in line], signers)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LedgerError(f"It is malformed: {type(error).__name__}: {error}.", _REMEDY) from None
    if len(given) + len(checkpoints) + 1 != len(lines):
        raise LedgerError("It has lines that are neither an entry nor a checkpoint.", _REMEDY)
    last = checkpoints[-1] if checkpoints else None
    if last is None or (last.ledger, last.size, last.root) != (ledger, size, root):
        raise LedgerError("It does not end with the checkpoint that the certificate names.", _REMEDY)
    shown = tuple(entry for entry in entries if entry is not None)
    return Slice(tuple(checkpoints), shown, len(entries) - len(shown))


def _entry(line: Mapping[str, Any], size: int, root: bytes) -> Entry | None:
    number, leaf = int(line["number"]), bytes.fromhex(line["leaf"])
    if not includes(leaf, number - 1, size, [bytes.fromhex(step) for step in line["inclusion"]], root):
        raise LedgerError(f"The proof that entry {number} is in the ledger does not hold.", _REMEDY)
    if line["content"] is None:
        return None
    entry = Entry.of(str(line["content"]))
    if entry.number != number or leaf_hash(entry.content()) != leaf:
        raise LedgerError(f"Entry {number} is not the one that its hash is of.", _REMEDY)
    return entry


def _signers(entries: Sequence[Entry], ledger: str) -> list[tuple[int, PublicKey]]:
    """From which entry on which key signs."""
    found = [entry for entry in entries if entry.kind in (LEDGER_BEGUN, KEY_REPLACED)]
    if not found or found[0].number != 1 or found[0].body.get("ledger") != ledger:
        raise LedgerError("It lacks the entry with which the ledger begins.", _REMEDY)
    return [(entry.number, PublicKey.from_hex(str(entry.body["key"]))) for entry in found]


def _checkpoints(
    lines: Sequence[Mapping[str, Any]], signers: Sequence[tuple[int, PublicKey]]
) -> list[Checkpoint]:
    found: list[Checkpoint] = []
    for line in lines:
        checkpoint = read_checkpoint(line["checkpoint"], [key for _, key in signers])
        (key_id,) = [signature["keyid"] for signature in line["checkpoint"]["signatures"]]
        if key_id != [key for begun, key in signers if begun <= checkpoint.size][-1].key_id:
            raise LedgerError(
                f"The checkpoint of {checkpoint.size} entries was signed by a key of another time.", _REMEDY
            )
        if found and not follows(found[-1], checkpoint, line["consistency"]):
            raise LedgerError(
                f"The ledger of {checkpoint.size} entries does not continue that of {found[-1].size}.",
                _REMEDY,
            )
        found.append(checkpoint)
    return found
