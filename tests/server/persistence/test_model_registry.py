"""Model versions: content, lineage, revocation, and files that are checked."""

from __future__ import annotations

import hashlib
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from reconsent.errors import StateError
from server.persistence import ModelRegistry, ModelVersion, RoundSpan, StateDirectory, VersionStatus
from server.persistence.tensors import Array, content_hash, pack, unpack

ARRAYS = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8),
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    ),
    max_size=4,
)


def model(value: float = 0.0) -> dict[str, Array]:
    """A small model whose arrays are not in alphabetical order."""
    return {
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3) + np.float32(value),
        "bias": np.full(3, value, np.float32),
        "steps": np.array(7, np.int64),
    }


@pytest.fixture
def registry(state: StateDirectory) -> ModelRegistry:
    """An empty registry."""
    return ModelRegistry(state)


def trained(
    registry: ModelRegistry, rounds: list[dict[str, float]], line: str = "main"
) -> list[ModelVersion]:
    """An initial version and one a round, with the given sites and weights."""
    versions = [registry.add(model(), line=line, round=0, kind="initial", parent=None, sites={})]
    for number, sites in enumerate(rounds, start=1):
        parent = versions[-1].id
        version = registry.add(
            model(number), line=line, round=number, kind="train", parent=parent, sites=sites
        )
        versions.append(version)
    return versions


def test_hash_is_over_canonical_content() -> None:
    """The hash is that of the documented byte string, written out here by hand."""
    arrays = {"b": np.array([[1, 2]], ">i2"), "a": np.array(0.5, np.float32)}
    text = b"a\0float32\0\x004\0" + b"\x00\x00\x00\x3f" + b"b\0int16\x001,2\x004\0" + b"\x01\x00\x02\x00"
    assert content_hash(arrays) == hashlib.sha256(text).hexdigest()


@given(ARRAYS)
def test_packing_is_lossless(arrays: dict[str, Array]) -> None:
    """Whatever the names, types and shapes, the arrays come back with the same hash."""
    back = unpack(pack(arrays))
    assert content_hash(back) == content_hash(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)


def test_memory_layout_does_not_matter() -> None:
    """A transposed view and a big-endian array are stored by value, not as their memory lies."""
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    for other in (np.asfortranarray(plain), plain.astype(">f4"), np.repeat(plain, 2, axis=0)[::2]):
        assert pack({"w": other}) == pack({"w": plain})
        assert content_hash({"w": other}) == content_hash({"w": plain})


def test_everything_that_makes_a_model_is_hashed() -> None:
    """A changed name, type, shape or bit changes the hash; the order of the arrays does not."""
    base = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(1, np.float32)}
    others: list[dict[str, Array]] = [
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"].reshape(3, 2), "b": base["b"]},
        {"a": base["a"].view(np.int32), "b": base["b"]},
        {"a": -base["a"], "b": base["b"]},
        {"a": base["a"]},
    ]
    assert content_hash(dict(reversed(base.items()))) == content_hash(base)
    assert len({content_hash(other) for other in [base, *others]}) == 6


def test_a_version_comes_back_in_the_models_own_order(registry: ModelRegistry) -> None:
    """Values, types, shapes and order survive; the file is a safetensors file named by the hash."""
    version = registry.add(model(1), line="main", round=0, kind="initial", parent=None, sites={})
    loaded = registry.load(version.id)
    assert list(loaded) == ["weight", "bias", "steps"]
    for name, array in model(1).items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
    path = registry.path(version)
    assert path.name == f"{content_hash(model(1))}.safetensors"
    assert set(load_file(path)) == set(loaded)


def test_lineage_is_the_union_along_the_parents(registry: ModelRegistry) -> None:
    """Each site has the first and last round in which its update entered; parents do not change."""
    versions = trained(registry, [{"a": 0.5, "b": 0.5}, {"b": 1.0}, {"a": 0.3, "c": 0.7}])
    assert versions[0].lineage == {}
    assert versions[1].lineage == {"a": RoundSpan(1, 1), "b": RoundSpan(1, 1)}
    assert versions[3].lineage == {"a": RoundSpan(1, 3), "b": RoundSpan(1, 2), "c": RoundSpan(3, 3)}
    assert registry.get(versions[1].id).lineage == versions[1].lineage
    assert versions[3].sites == {"a": 0.3, "c": 0.7}


def test_a_branch_from_before_a_site_joined_has_no_edge_from_it(registry: ModelRegistry) -> None:
    """Going back to an older version leaves the later site out of the lineage."""
    versions = trained(registry, [{"a": 1.0}, {"a": 0.5, "late": 0.5}])
    branch = registry.add(
        model(9), line="oracle-1", round=2, kind="retain", parent=versions[1].id, sites={"a": 1.0}
    )
    assert set(branch.lineage) == {"a"}
    revoked = registry.revoke_descendants_of_site("late", "withdrawn")
    assert [version.id for version in revoked] == [versions[2].id]


def test_one_version_of_a_line_is_active(registry: ModelRegistry) -> None:
    """A new version supersedes the former one of its line, not those of other lines."""
    trained(registry, [{"a": 1.0}], line="oracle-1")
    versions = trained(registry, [{"a": 1.0}, {"a": 1.0}])
    assert [v.status for v in registry.all("main")] == ["superseded", "superseded", "active"]
    assert [v.status for v in registry.all("oracle-1")] == ["superseded", "active"]
    assert registry.latest("main") == versions[-1]
    assert registry.latest("main", kinds=["initial"]) == registry.initial("main")
    assert registry.latest("nowhere") is None
    assert registry.initial("nowhere") is None


def test_adding_again_changes_nothing(registry: ModelRegistry) -> None:
    """The same version added twice is one version, and no line loses its head."""
    versions = trained(registry, [{"a": 1.0}, {"a": 1.0}])
    again = trained(registry, [{"a": 1.0}, {"a": 1.0}])
    assert [v.id for v in again] == [v.id for v in versions]
    assert len(registry.all()) == 3
    assert registry.latest("main") == versions[-1]


def test_equal_content_in_two_places_is_two_versions(registry: ModelRegistry) -> None:
    """A round that changed nothing is a version of its own that shares the file."""
    first = registry.add(model(), line="main", round=0, kind="initial", parent=None, sites={})
    second = registry.add(model(), line="main", round=1, kind="train", parent=first.id, sites={"a": 1.0})
    assert first.id != second.id
    assert registry.path(first) == registry.path(second)


def test_revocation_spares_what_was_unlearned(registry: ModelRegistry) -> None:
    """Every version with the site is revoked, up to the one that unlearned it; its descendants are not."""
    versions = trained(registry, [{"a": 1.0}, {"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5}])
    step = registry.add(
        model(4), line="main", round=4, kind="retain", parent=versions[3].id, sites={}, method="ascent"
    )
    unlearned = registry.add(
        model(5), line="main", round=5, kind="unlearned", parent=step.id, sites={}, method="ascent",
        forgets=["b"],
    )  # fmt: skip
    revoked = registry.revoke_descendants_of_site("b", "b withdrew (W-1)")
    assert [v.id for v in revoked] == [versions[2].id, versions[3].id, step.id]
    assert registry.revoke_descendants_of_site("b", "again") == []
    after = registry.add(model(6), line="main", round=6, kind="train", parent=unlearned.id, sites={"a": 1.0})
    assert after.forgotten == ("b",)
    assert set(after.lineage) == {"a", "b"}
    assert registry.latest("main") == after
    assert registry.revoke_descendants_of_site("b", "again") == []


def test_a_site_that_comes_back_is_no_longer_forgotten(registry: ModelRegistry) -> None:
    """A new update of a forgotten site makes later versions depend on it again."""
    versions = trained(registry, [{"a": 0.5, "b": 0.5}])
    gone = registry.add(
        model(2), line="main", round=2, kind="unlearned", parent=versions[1].id, sites={}, forgets=["b"]
    )
    back = registry.add(
        model(3), line="main", round=3, kind="train", parent=gone.id, sites={"a": 0.5, "b": 0.5}
    )
    assert not gone.depends_on("b")
    assert back.depends_on("b")


def test_a_revoked_version_says_why(registry: ModelRegistry) -> None:
    """It is loaded by force only, and nothing can be trained from it."""
    versions = trained(registry, [{"a": 0.5, "b": 0.5}])
    registry.revoke_descendants_of_site("b", "b withdrew (W-1)")
    with pytest.raises(StateError, match=r"round 1\) is revoked: b withdrew \(W-1\)"):
        registry.load(versions[1].id)
    assert set(registry.load(versions[1].id, force=True)) == set(model())
    assert registry.get(versions[1].id).status is VersionStatus.REVOKED
    with pytest.raises(StateError, match="is revoked"):
        registry.add(model(2), line="main", round=2, kind="train", parent=versions[1].id, sites={"a": 1.0})
    assert registry.latest("main") == registry.get(versions[0].id)


@pytest.mark.parametrize(
    ("kind", "sites", "forgets", "message"),
    [
        ("guess", {}, [], "kind 'guess'.*initial, train"),
        ("unlearned", {}, [], "does not say whom it forgets"),
        ("unlearned", {"b": 1.0}, ["b"], "cannot forget b and have their updates"),
    ],
)
def test_contradicting_versions_are_refused(
    registry: ModelRegistry, kind: str, sites: dict[str, float], forgets: list[str], message: str
) -> None:
    """An unknown kind, and an unlearned version that does not say whom it forgets, are refused."""
    with pytest.raises(StateError, match=message):
        registry.add(model(), line="main", round=1, kind=kind, parent=None, sites=sites, forgets=forgets)
    assert registry.all() == []


def test_unknown_versions_and_parents_are_named(registry: ModelRegistry) -> None:
    """An id that is not there is named, as version and as parent."""
    with pytest.raises(StateError, match="no model version 'beef'"):
        registry.load("beef")
    with pytest.raises(StateError, match="no model version 'beef'"):
        registry.add(model(), line="main", round=1, kind="train", parent="beef", sites={})


def test_damaged_files_are_named(registry: ModelRegistry) -> None:
    """Truncated at any place, altered in any byte, or missing: the file is named and not used."""
    version = registry.add(model(), line="main", round=0, kind="initial", parent=None, sites={})
    path = registry.path(version)
    whole = path.read_bytes()
    assert registry.verify() == []
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StateError, match=f"{path.name} .*truncated"):
            registry.load(version.id)
    for place in range(8, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        if unpack_fails_or_differs(path, version):
            with pytest.raises(StateError, match=f"{path.name} .*altered"):
                registry.load(version.id)
    path.unlink()
    with pytest.raises(StateError, match=f"{path.name} .*missing"):
        registry.load(version.id)
    (problem,) = registry.verify()
    assert path.name in problem


def unpack_fails_or_differs(path: Path, version: ModelVersion) -> bool:
    """Whether the file no longer holds the version's arrays (white space in the header may change)."""
    try:
        arrays = load_file(path)
    except Exception:  # noqa: BLE001 - whatever the parser says of a flipped bit
        return True
    reference = model()
    return set(arrays) != set(version.names) or any(
        arrays[name].dtype != reference[name].dtype
        or arrays[name].shape != reference[name].shape
        or arrays[name].tobytes() != reference[name].tobytes()
        for name in reference
    )


def test_pruning_removes_files_and_keeps_rows(registry: ModelRegistry) -> None:
    """The newest ones, the initial one and the protected one keep their files."""
    versions = trained(registry, [{"a": 1.0}] * 5)
    pruned = registry.prune("main", 2, protect=[versions[2].id])
    assert {v.id for v in pruned} == {versions[1].id, versions[3].id}
    assert [registry.path(v).exists() for v in versions] == [True, False, True, False, True, True]
    assert len(registry.all("main")) == 6
    assert registry.verify() == []
    with pytest.raises(StateError, match="was removed"):
        registry.load(versions[1].id)
    assert registry.prune("main", 0, protect=[versions[2].id]) == [registry.get(versions[4].id)]
    assert registry.latest("main") is not None


def test_a_shared_file_stays_while_one_version_needs_it(registry: ModelRegistry) -> None:
    """Pruning a version does not take the file from another with the same content."""
    first = registry.add(model(), line="main", round=0, kind="initial", parent=None, sites={})
    second = registry.add(model(), line="main", round=1, kind="train", parent=first.id, sites={"a": 1.0})
    registry.add(model(2), line="main", round=2, kind="train", parent=second.id, sites={"a": 1.0})
    assert [v.id for v in registry.prune("main", 1)] == [second.id]
    assert set(registry.load(first.id)) == set(model())


def test_a_pruning_that_is_rolled_back_removes_nothing(
    registry: ModelRegistry, state: StateDirectory
) -> None:
    """Files go only when the pruning is committed, also if only a part of the transaction is undone."""
    versions = trained(registry, [{"a": 1.0}] * 3)
    with pytest.raises(ZeroDivisionError), state.session() as session:
        registry.prune("main", 1, session=session)
        raise ZeroDivisionError
    with state.session():
        with pytest.raises(ZeroDivisionError), state.session() as inner:
            registry.prune("main", 1, session=inner)
            raise ZeroDivisionError
        registry.add(model(8), line="other", round=0, kind="initial", parent=None, sites={})
    for version in versions:
        registry.load(version.id)


def test_sweeping_removes_what_a_crash_left(registry: ModelRegistry, state: StateDirectory) -> None:
    """A file whose row was never committed goes, and so does a half-written one; others stay."""
    version = registry.add(model(), line="main", round=0, kind="initial", parent=None, sites={})
    with pytest.raises(ZeroDivisionError), state.session() as session:
        registry.add(
            model(1), line="main", round=1, kind="train", parent=version.id, sites={}, session=session
        )
        raise ZeroDivisionError
    orphan = state.models_dir / f"{content_hash(model(1))}.safetensors"
    part = state.models_dir / ".x.safetensors.123.part"
    part.write_bytes(b"half")
    assert orphan.exists()
    assert set(registry.sweep()) == {orphan, part}
    assert registry.verify() == []
    assert registry.sweep() == []


def test_sweeping_with_the_wrong_database_is_refused(registry: ModelRegistry, state: StateDirectory) -> None:
    """If the database knows no version at all, the files are not taken for rubbish."""
    for name in ("a", "b"):
        (state.models_dir / f"{name}.safetensors").write_bytes(b"")
    with pytest.raises(StateError, match="knows no model version"):
        registry.sweep()
    assert len(list(state.models_dir.iterdir())) == 2


def test_a_model_that_cannot_be_written_is_not_registered(registry: ModelRegistry) -> None:
    """When the file system refuses, the file is named and the line keeps its head."""
    head = registry.add(model(), line="main", round=0, kind="initial", parent=None, sites={})
    large = {"w": np.zeros(1_000_000, np.float32)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(StateError, match=r"\.safetensors cannot be used: File too large.*raise it"):
            registry.add(large, line="main", round=1, kind="train", parent=head.id, sites={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert registry.latest("main") == head
    assert registry.sweep() == []


def test_a_type_that_cannot_be_stored_is_named(registry: ModelRegistry) -> None:
    """An array type that safetensors lacks is refused in words."""
    with pytest.raises(StateError, match="complex128"):
        registry.add(
            {"w": np.zeros(1, np.complex128)}, line="main", round=0, kind="initial", parent=None, sites={}
        )
