"""Checks a ledger from its first entry to its last, and names the first that is not what was written.

What it finds depends on what the forger had. Without the signing key, every change but cutting off the end
is found in the ledger alone, since each entry carries a signature of everything up to it. Cutting off the
end, and a history rewritten with the key, are found by comparing with a checkpoint that somebody else kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from reconsent.errors import LedgerError, SignatureError
from unlearning.ledger.checkpoints import Checkpoint
from unlearning.ledger.entries import KEY_REPLACED, LEDGER_BEGUN, Entry, Row
from unlearning.ledger.merkle import MerkleTree
from unlearning.signing import PublicKey


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that is wrong.

    Attributes
    ----------
    number
        Of the entry; of the first that may be wrong, if it cannot be told which one is.
    problem
        In words.
    """

    number: int
    problem: str


@dataclass(slots=True)
class Audit:
    """What a check came to.

    Attributes
    ----------
    ledger
        The ledger's id; empty if there is no first entry.
    size, root
        Entries that are sound, and the root (hexadecimal) over them.
    at
        When the last sound entry was written.
    keys
        Ids of the keys that signed, in the order in which they did.
    compared
        How many checkpoints kept elsewhere the ledger agrees with.
    fault
        The first thing that is wrong; ``None`` if nothing is.
    """

    ledger: str = ""
    size: int = 0
    root: str = field(default_factory=lambda: MerkleTree().root().hex())
    at: str = ""
    keys: list[str] = field(default_factory=list)
    compared: int = 0
    fault: Fault | None = None

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault is None


class Auditor:
    """An audit that can be gone on with when entries were added; what was checked is not checked again.

    Attributes
    ----------
    result
        Of what was checked so far.
    """

    def __init__(self) -> None:
        self.result = Audit()
        self._tree = MerkleTree()
        self._key: PublicKey | None = None

    def take(self, row: Row, trusted: Sequence[PublicKey]) -> bool:
        """Check the next entry; ``False`` if it is wrong, and then there is nothing to go on with."""
        result = self.result
        try:
            entry = _read(row, result.size + 1)
            self._key = key = _signer(entry, self._key, trusted)
            self._tree.append(row.leaf_hash)
            _check_written(row, entry, self._tree.root().hex(), result.ledger or _id(entry), key)
        except _Wrong as wrong:
            result.fault = Fault(result.size + 1, wrong.problem)
            return False
        result.ledger = result.ledger or _id(entry)
        result.size, result.root, result.at = entry.number, row.root, entry.at
        if key.key_id not in result.keys:
            result.keys.append(key.key_id)
        return True


def audit(rows: Iterable[Row], trusted: Sequence[PublicKey], kept: Sequence[Checkpoint] = ()) -> Audit:
    """Check every entry, in order, and compare with checkpoints kept elsewhere.

    Parameters
    ----------
    rows
        The ledger, by place; read one at a time.
    trusted
        Keys that may have signed; every key that the ledger names must be among them.
    kept
        Checkpoints that are known to be genuine.

    Returns
    -------
    The result; reading stops at the first entry that is wrong.
    """
    auditor = Auditor()
    result = auditor.result
    wanted, roots = {checkpoint.size for checkpoint in kept}, dict[int, str]()
    for row in rows:
        if not auditor.take(row, trusted):
            break
        if result.size in wanted:
            roots[result.size] = row.root
    result.compared, fault = compare(result, kept, roots.get)
    result.fault = fault or result.fault
    return result


def compare(
    result: Audit, kept: Sequence[Checkpoint], root_of: Callable[[int], str | None]
) -> tuple[int, Fault | None]:
    """Compare a ledger that was checked with checkpoints kept elsewhere.

    Parameters
    ----------
    result
        What the check came to; if it ended at a fault, only checkpoints of the entries before it count.
    kept
        Checkpoints that are known to be genuine.
    root_of
        The root that was written with an entry that was checked, by its number.

    Returns
    -------
    With how many it agrees, up to the first that it does not agree with; and what is wrong then.
    """
    agreed = compared = 0
    for checkpoint in sorted(kept, key=lambda checkpoint: checkpoint.size):
        if checkpoint.size > result.size and result.fault is not None:
            break
        if result.ledger not in ("", checkpoint.ledger):
            problem = f"the checkpoint is of {checkpoint.ledger}, not {result.ledger}"
            return compared, Fault(1, f"this is another ledger: {problem}")
        if checkpoint.size > result.size:
            return compared, Fault(
                result.size + 1,
                f"entries {result.size + 1} to {checkpoint.size} are missing: a checkpoint of "
                f"{checkpoint.at} was signed when there were {checkpoint.size}",
            )
        if root_of(checkpoint.size) != checkpoint.root:
            return compared, Fault(
                agreed + 1,
                f"entries {agreed + 1} to {checkpoint.size} are not those that a checkpoint of "
                f"{checkpoint.at} was signed for: one of them, or more, was rewritten with the signing key",
            )
        agreed, compared = checkpoint.size, compared + 1
    return compared, None


class _Wrong(Exception):  # noqa: N818 - it never leaves this module
    def __init__(self, problem: str) -> None:
        self.problem = problem


def _read(row: Row, number: int) -> Entry:
    if row.number != number:
        raise _Wrong(f"it is missing: entry {row.number} is in its place")
    try:
        entry = Entry.of(row.content)
    except LedgerError as error:
        raise _Wrong(f"its content was altered: {error.problem}") from None
    if entry.number != number:
        raise _Wrong(f"its place holds entry {entry.number}: entries were dropped or reordered")
    copies = (("kind", row.kind, entry.kind), ("time", row.at, entry.at))
    for name, copy, original in copies:
        if copy is not None and copy != original:
            raise _Wrong(f"its {name} was altered: '{copy}' beside its content, '{original}' in it")
    if row.leaf is not None and row.leaf != row.leaf_hash.hex():
        raise _Wrong("its content was altered: it does not have the hash it had")
    return entry


def _signer(entry: Entry, key: PublicKey | None, trusted: Sequence[PublicKey]) -> PublicKey:
    if entry.number == 1 and entry.kind != LEDGER_BEGUN:
        raise _Wrong(f"a ledger begins with '{LEDGER_BEGUN}', not with '{entry.kind}'")
    if entry.number > 1 and entry.kind == LEDGER_BEGUN:
        raise _Wrong("a ledger begins once")
    if entry.kind in (LEDGER_BEGUN, KEY_REPLACED):
        try:
            key = PublicKey.from_hex(str(entry.body.get("key")))
        except SignatureError as error:
            raise _Wrong(f"its key cannot be read: {error.problem}") from None
        if key.key_id not in {known.key_id for known in trusted}:
            raise _Wrong(f"it names key {key.key_id}, which is not trusted")
    if key is None:
        raise _Wrong("no key was named before it")
    return key


def _check_written(row: Row, entry: Entry, root: str, ledger: str, key: PublicKey) -> None:
    if row.root != root:
        raise _Wrong("its content was altered, or it was put here: the root hash written with it is another")
    if not Checkpoint(ledger, entry.number, root, entry.at).holds(key, row.signature):
        raise _Wrong("it was rewritten without the signing key: its signature does not hold")


def _id(entry: Entry) -> str:
    return str(entry.body.get("ledger", ""))
