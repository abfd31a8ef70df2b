"""The Merkle tree against the vectors of Certificate Transparency, and against its definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconsent.errors import LedgerError
from unlearning.ledger.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    continues,
    includes,
    leaf_hash,
    node_hash,
)

# The leaves, roots and proofs that the implementations of Certificate Transparency test themselves with.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def grown(size: int) -> MerkleTree:
    tree = MerkleTree()
    for number in range(size):
        tree.append(leaf_hash(LEAVES[number] if size <= len(LEAVES) else str(number).encode()))
    return tree


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH as RFC 9162 §2.1.1 defines it, from the leaves' contents."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(defined_root(leaves[:split]), defined_root(leaves[split:]))


def defined_proof(old: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF as RFC 9162 §2.1.4.1 defines it."""
    if old == len(leaves):
        return [] if whole else [defined_root(leaves)]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if old <= split:
        return [*defined_proof(old, leaves[:split], whole), defined_root(leaves[split:])]
    return [*defined_proof(old - split, leaves[split:], False), defined_root(leaves[:split])]


@pytest.mark.parametrize("size", range(9))
def test_known_roots(size: int) -> None:
    """The roots are those of Certificate Transparency's test data, whatever the tree has grown to since."""
    assert grown(size).root().hex() == ROOTS[size] == grown(8).root(size).hex()


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_known_inclusion_proofs(index: int, size: int) -> None:
    """Inclusion proofs are those of the test data, and hold."""
    proof = grown(8).inclusion_proof(index, size)
    assert [step.hex() for step in proof] == INCLUSION[index, size]
    assert includes(leaf_hash(LEAVES[index]), index, size, proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_known_consistency_proofs(old: int, new: int) -> None:
    """Consistency proofs are those of the test data, and hold."""
    proof = grown(8).consistency_proof(old, new)
    assert [step.hex() for step in proof] == CONSISTENCY[old, new]
    assert continues(old, bytes.fromhex(ROOTS[old]), new, bytes.fromhex(ROOTS[new]), proof)


SIZES = st.integers(0, 70).flatmap(lambda new: st.tuples(st.integers(0, new), st.just(new)))


@given(SIZES)
def test_roots_and_proofs_are_those_of_the_definition(sizes: tuple[int, int]) -> None:
    """However large the trees, roots and consistency proofs equal the RFC's recursive definition."""
    old, new = sizes
    leaves = [str(number).encode() for number in range(new)]
    tree = MerkleTree()
    for leaf in leaves:
        tree.append(leaf_hash(leaf))
    assert tree.root(old) == defined_root(leaves[:old])
    proof = tree.consistency_proof(old)
    assert proof == (defined_proof(old, leaves, True) if 0 < old < new else [])
    assert continues(old, tree.root(old), new, tree.root(), proof)


@given(SIZES, st.data())
def test_no_other_history_has_a_proof(sizes: tuple[int, int], data: st.DataObject) -> None:
    """With one hash of proof or roots changed, dropped or added, or another size, nothing is proved."""
    old, new = sizes
    tree = grown(max(new, 9))
    proof = tree.consistency_proof(old, new)
    roots = [tree.root(old), tree.root(new)]
    wrong = leaf_hash(b"something else")
    assert not continues(old, wrong, new, roots[1], proof)
    if old:
        assert not continues(old, roots[0], new, wrong, proof)
    assert not continues(old, roots[0], new, roots[1], [*proof, wrong])
    if proof:
        where = data.draw(st.integers(0, len(proof) - 1))
        assert not continues(old, *roots[:1], new, roots[1], proof[:where] + proof[where + 1 :])
        changed = [*proof]
        changed[where] = wrong
        assert not continues(old, roots[0], new, roots[1], changed)
    assert not continues(new + 1, roots[0], new, roots[1], proof)


@given(st.integers(1, 70), st.data())
def test_inclusion(size: int, data: st.DataObject) -> None:
    """Every leaf has a proof of its place, and of no other place or leaf."""
    tree = MerkleTree()
    for number in range(size):
        tree.append(leaf_hash(str(number).encode()))
    index = data.draw(st.integers(0, size - 1))
    proof, leaf, root = tree.inclusion_proof(index), leaf_hash(str(index).encode()), tree.root()
    assert includes(leaf, index, size, proof, root)
    assert not includes(leaf_hash(b"other"), index, size, proof, root)
    for other in {index - 1, index + 1, size, -1}:
        assert not includes(leaf, other, size, proof, root)
    assert not includes(leaf, index, size, [*proof, leaf], root)
    assert not proof or not includes(leaf, index, size, proof[:-1], root)


@given(SIZES)
def test_truncated_tree_is_the_smaller_one(sizes: tuple[int, int]) -> None:
    """A tree cut back and grown again is as if nothing had been."""
    old, new = sizes
    tree, reference = grown(new + 9), grown(old + 9)
    tree.truncate(old + 9)
    assert tree.size == old + 9
    assert tree.root() == reference.root()
    tree.append(leaf_hash(b"x"))
    reference.append(leaf_hash(b"x"))
    assert tree.root() == reference.root()


def test_what_is_not_there_has_no_proof() -> None:
    """Proofs about leaves beyond the tree are refused in words."""
    tree = grown(3)
    for ask in (
        lambda: tree.root(4),
        lambda: tree.consistency_proof(4),
        lambda: tree.consistency_proof(3, 2),
        lambda: tree.inclusion_proof(3),
        lambda: tree.inclusion_proof(-2),
    ):
        with pytest.raises(LedgerError):
            ask()
