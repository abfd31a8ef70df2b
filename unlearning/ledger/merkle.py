"""The Merkle tree of a log, and its proofs: RFC 9162 (Certificate Transparency 2.0), §2.1, with SHA-256.

Numbers of leaves count from 0 here, as they do there; entries of the ledger are numbered from 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from reconsent.errors import LedgerError

EMPTY_ROOT = hashlib.sha256().digest()
"""Root of the tree without leaves."""


def leaf_hash(content: bytes) -> bytes:
    """SHA-256(0x00 ‖ content), 32 bytes."""
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right), 32 bytes; the prefix keeps an inner node from passing for a leaf."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """Hashes of leaves in their order; a root or a proof costs O(log n) hashes.

    Nothing but hashes is kept: ``levels[k][i]`` is the hash of the complete subtree of leaves
    ``i·2ᵏ … (i+1)·2ᵏ − 1``.
    """

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add the hash of one more leaf (see :func:`leaf_hash`)."""
        level = 0
        self._levels[0].append(leaf)
        while len(self._levels[level]) % 2 == 0:
            pair = self._levels[level][-2:]
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node_hash(*pair))

    def truncate(self, size: int) -> None:
        """Forget all leaves but the first ``size``."""
        for level, hashes in enumerate(self._levels):
            del hashes[size >> level :]

    def root(self, size: int | None = None) -> bytes:
        """The root over the first ``size`` leaves; over all if ``None`` (MTH of §2.1.1)."""
        wanted = self.size if size is None else size
        self._check(0, wanted)
        return self._hash(0, wanted) if wanted else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """What proves that leaf ``index`` is in the tree of the first ``size`` leaves (PATH of §2.1.3.1).

        Raises
        ------
        LedgerError
            If there is no such leaf.
        """
        end = self.size if size is None else size
        self._check(index + 1, end)
        path, start = [], 0
        while end - start > 1:
            middle = start + _largest_power_below(end - start)
            if index < middle:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start = middle
        return path[::-1]

    def consistency_proof(self, old: int, new: int | None = None) -> list[bytes]:
        """What proves that the tree of ``old`` leaves is the beginning of that of ``new`` (§2.1.4.1).

        It is empty if both are equal, or the old one is empty: then there is nothing to prove.

        Raises
        ------
        LedgerError
            If there are fewer leaves, or ``old`` is larger than ``new``.
        """
        end = self.size if new is None else new
        self._check(old, end)
        if old in (0, end):
            return []
        path, start, whole = [], 0, True
        while start + (remaining := old - start) != end:
            middle = start + _largest_power_below(end - start)
            if remaining <= middle - start:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start, whole = middle, False
        if not whole:
            path.append(self._hash(start, end))
        return path[::-1]

    def _hash(self, start: int, end: int) -> bytes:
        width = end - start
        if width & (width - 1) == 0:
            # Subtrees are split at powers of two, so a complete one begins at a multiple of its width.
            return self._levels[width.bit_length() - 1][start // width]
        middle = start + _largest_power_below(width)
        return node_hash(self._hash(start, middle), self._hash(middle, end))

    def _check(self, inner: int, outer: int) -> None:
        if not 0 <= inner <= outer <= self.size:
            raise LedgerError(
                f"There is no proof about {inner} of {outer} entries in a ledger of {self.size}.",
                "Ask for fewer; was the ledger restored from an older backup?",
            )


def includes(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``proof`` shows that leaf ``index`` of the tree of ``size`` leaves is ``leaf`` (§2.1.3.2)."""
    if not 0 <= index < size:
        return False
    fn, sn, found = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            found = node_hash(sibling, found)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = node_hash(found, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and found == root


def continues(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``proof`` shows that the tree of ``new`` leaves begins with that of ``old`` (§2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = node_hash(second, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and first == old_root and second == new_root


def _largest_power_below(number: int) -> int:
    """The largest power of two that is smaller than ``number`` (which is 2 at least)."""
    return 1 << (number - 1).bit_length() - 1
