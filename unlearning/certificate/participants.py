"""A commitment to who took part in a round, without a name."""

from __future__ import annotations

from collections.abc import Iterable

from unlearning.ledger.merkle import MerkleTree, leaf_hash


def participants_root(pseudonyms: Iterable[str]) -> str:
    """Root (RFC 9162, §2.1.1; hexadecimal) over the pseudonyms of a round's participants.

    The leaves are the pseudonyms in UTF-8, each once, in ascending order; so whoever is not in the list is
    not under the root.
    """
    tree = MerkleTree()
    for name in sorted(set(pseudonyms)):
        tree.append(leaf_hash(name.encode()))
    return tree.root().hex()
