"""The contribution cache against sums computed by hand, and against damaged files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sqlalchemy.orm import Session

from reconsent.errors import ContributionError
from unlearning.contributions import CachePolicy, ContributionCache, discard
from unlearning.folding import specific_contribution
from unlearning.history import damped_sum
from unlearning.site_keys import KeyPolicy, SiteKeys
from unlearning.spool import UpdateSpool

P = 17


def feed(cache: ContributionCache, directory: Path, rounds: list[dict[str, tuple[int, np.ndarray]]]) -> None:
    """Record rounds of ``site → (examples, update)``."""
    spool = UpdateSpool(directory / "spool")
    for number, updates in enumerate(rounds, start=1):
        spool.clear()
        for site, (examples, update) in updates.items():
            spool.put(site, update, examples=examples, norm=float(np.linalg.norm(update)))
        weights = spool.weights()
        mean = sum(np.float32(weights[site]) * updates[site][1] for site in sorted(updates))
        cache.record(number, spool, np.asarray(mean, dtype=np.float32))


def random_rounds(count: int, seed: int = 0) -> list[dict[str, tuple[int, np.ndarray]]]:
    rng = np.random.default_rng(seed)
    return [
        {s: (n, rng.standard_normal(P).astype(np.float32)) for s, n in (("a", 1), ("b", 3), ("c", 4))}
        for _ in range(count)
    ]


def test_running_sum_is_the_weighted_sum(tmp_path: Path) -> None:
    """Σ pΔ by the cache equals Σ pΔ by hand, with unequal shares."""
    rounds = random_rounds(5)
    cache = ContributionCache.open(tmp_path / "c")
    feed(cache, tmp_path, rounds)
    expected = sum(3 / 8 * r["b"][1].astype(np.float64) for r in rounds)
    np.testing.assert_allclose(cache.running("b", "sum"), expected, atol=1e-5)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_damped_sum_with_absence_is_the_recursion_round_by_round(tmp_path: Path, damping: float) -> None:
    """U ← (1 − α (1 − p)) U + p Δ, with p = 0 in rounds the site missed, in between and at the end."""
    rounds = random_rounds(8)
    for missed in (2, 3, 7):
        del rounds[missed]["b"]
    policy = CachePolicy(history_every=1, history_dtype="float32")
    cache = ContributionCache.open(tmp_path / "c", policy)
    feed(cache, tmp_path, rounds)
    expected = np.zeros(P)
    for updates in rounds:
        share = 3 / 8 if "b" in updates else 0.0
        expected *= 1 - damping * (1 - share)
        if "b" in updates:
            expected += share * updates["b"][1]
    np.testing.assert_allclose(damped_sum(cache, ["b"], damping=damping), expected, atol=1e-6)


def test_in_a_damped_sum_a_kept_update_stands_for_those_that_were_not(tmp_path: Path) -> None:
    """Of every other update: each counts twice, and is damped for each round by the share it had there."""
    rounds = random_rounds(6)
    del rounds[2]["b"]
    policy = CachePolicy(history_every=2, history_dtype="float32")
    cache = ContributionCache.open(tmp_path / "c", policy)
    feed(cache, tmp_path, rounds)
    there, away = 1 - 0.3 * 5 / 8, 1 - 0.3
    kept = [rounds[t - 1]["b"][1].astype(np.float64) for t in (2, 4, 6)]
    weight = 5 / 3 * 3 / 8  # five rounds, three kept
    expected = weight * (there**2 * (away * there * kept[0] + kept[1]) + kept[2])
    np.testing.assert_allclose(damped_sum(cache, ["b"], damping=0.3), expected, atol=1e-6)


def test_specific_sum_with_damping_and_absence(tmp_path: Path) -> None:
    """U ← (1 − a(1 − p)) U + c, with p = 0 in rounds the site missed, equals the recursion by hand."""
    rounds = random_rounds(6)
    del rounds[2]["b"], rounds[3]["b"]
    cache = ContributionCache.open(tmp_path / "c", CachePolicy(damping=0.2))
    feed(cache, tmp_path, rounds)
    expected = np.zeros(P)
    for updates in rounds:
        total = sum(n for n, _ in updates.values())
        mean = sum(n / total * u.astype(np.float64) for n, u in updates.values())
        p = updates["b"][0] / total if "b" in updates else 0.0
        c = p / (1 - p) * (updates["b"][1] - mean) if "b" in updates else 0.0
        expected = (1 - 0.2 * (1 - p)) * expected + c
    np.testing.assert_allclose(cache.running("b", "specific"), expected, atol=1e-5)


def test_absence_damps_on_reading_as_it_does_on_folding(tmp_path: Path) -> None:
    """After rounds a site missed, its specific contribution reads as damped; its sum stays as it is."""
    rounds = random_rounds(7)
    for updates in rounds[3:]:
        del updates["b"]
    policy = CachePolicy(damping=0.2, anchor_rounds=frozenset({2, 5}))
    cache = ContributionCache.open(tmp_path / "c", policy)
    feed(cache, tmp_path, rounds)
    until = {}
    for count in (2, 3):
        before = ContributionCache.open(tmp_path / str(count), policy)
        feed(before, tmp_path, rounds[:count])
        until[count] = before
    for missed, at_round in ((4, None), (4, 9), (2, 5), (0, 3)):
        expected = np.float32(0.8**missed) * until[3].running("b", "specific")
        np.testing.assert_array_equal(cache.running("b", "specific", at_round=at_round), expected)
    np.testing.assert_array_equal(
        cache.running("b", "specific", at_round=2), until[2].running("b", "specific")
    )
    np.testing.assert_array_equal(cache.running("b", "sum"), until[3].running("b", "sum"))


def test_a_pair_larger_than_a_block_is_folded_as_a_small_one(tmp_path: Path) -> None:
    """Of vectors of several blocks and pieces, sum, specific and Ψ are those of the formulas."""
    size = 2**18 + 2**17 + 3
    rng = np.random.default_rng(0)
    keys = SiteKeys(tmp_path / "keys", KeyPolicy())
    for name, given_keys in (("plain", None), ("sealed", keys)):
        cache = ContributionCache.open(tmp_path / name, CachePolicy(damping=0.1), keys=given_keys)
        total, specific, reach = np.zeros(size), np.zeros(size), 0.0
        for round_ in (1, 2):
            a, b = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
            mean = 0.25 * a + 0.75 * b
            spool = UpdateSpool(tmp_path / f"spool-{name}-{round_}")
            spool.put("a", a, examples=1, norm=1.0)
            spool.put("b", b, examples=3, norm=1.0)
            cache.record(round_, spool, mean)
            added = (a.astype(np.float64) - mean) / 3
            total += 0.25 * a
            specific = (1 - 0.1 * 0.75) * specific + added
            reach = (1 - 0.1 * 0.75) * reach + float(np.linalg.norm(added))
        np.testing.assert_allclose(cache.running("a", "sum"), total, atol=1e-5)
        np.testing.assert_allclose(cache.running("a", "specific"), specific, atol=1e-5)
        assert cache.sensitivity("a", 2) == pytest.approx(reach, rel=1e-6)


@pytest.mark.parametrize(("was", "becomes"), [(b'"sum"', b'"sun"'), (b"[17]", b"[16]"), (b"[17]", b"[99]")])
def test_a_pair_with_an_altered_header_is_called_altered(tmp_path: Path, was: bytes, becomes: bytes) -> None:
    """A round is not added to a file whose names or sizes were changed: it is altered, and stays as it is."""
    cache = ContributionCache.open(tmp_path / "c")
    feed(cache, tmp_path, random_rounds(1))
    (file,) = (tmp_path / "c" / "b").glob("running-*")
    changed = file.read_bytes().replace(was, becomes)
    assert changed != file.read_bytes()
    file.write_bytes(changed)
    spool = UpdateSpool(tmp_path / "next")
    spool.put("b", np.ones(P, np.float32), examples=1, norm=1.0)
    with pytest.raises(ContributionError, match="altered"):
        cache.record(2, spool, np.ones(P, np.float32))
    assert file.read_bytes() == changed


@given(
    delta=hnp.arrays(np.float32, P, elements=st.floats(-10, 10, width=32)),
    other=hnp.arrays(np.float32, P, elements=st.floats(-10, 10, width=32)),
    share=st.floats(0.01, 0.9),
)
def test_specific_contribution_is_mean_minus_mean_without(
    delta: np.ndarray, other: np.ndarray, share: float
) -> None:
    """p/(1 − p)(Δ − Δ̄) is the average minus the average of the others, for any share."""
    mean = (share * delta.astype(np.float64) + (1 - share) * other).astype(np.float32)
    got = specific_contribution(delta, mean, share)
    np.testing.assert_allclose(got, mean - other, atol=2e-4 / (1 - share))


def test_a_lone_site_contributed_everything() -> None:
    """With p = 1 nobody else would have moved the model: the contribution is the update itself."""
    delta = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(specific_contribution(delta, delta, 1.0), delta)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("bfloat16", 2**-8)])
def test_history_keeps_every_kth_update(tmp_path: Path, dtype: str, tolerance: float) -> None:
    """Every k-th update comes back, to the precision of its storage type; the norms of all are kept."""
    rounds = random_rounds(7)
    cache = ContributionCache.open(tmp_path / "c", CachePolicy(history_every=3, history_dtype=dtype))  # type: ignore[arg-type]
    feed(cache, tmp_path, rounds)
    kept = list(cache.updates("c"))
    assert [number for number, _, _ in kept] == [3, 6]
    for number, share, update in kept:
        np.testing.assert_allclose(update, rounds[number - 1]["c"][1], rtol=tolerance, atol=0)
        assert share == 0.5
    np.testing.assert_allclose(cache.norms("c"), [np.linalg.norm(r["c"][1]) for r in rounds], rtol=1e-6)


def test_anchors_keep_the_running_sums_of_their_round(tmp_path: Path) -> None:
    """At an anchor round the sums stay as they were, while the current ones go on."""
    rounds = random_rounds(5)
    cache = ContributionCache.open(tmp_path / "c", CachePolicy(anchor_rounds=frozenset({2})))
    feed(cache, tmp_path, rounds)
    at_two = sum(1 / 8 * r["a"][1].astype(np.float64) for r in rounds[:2])
    np.testing.assert_allclose(cache.running("a", "sum", at_round=2), at_two, atol=1e-6)
    files = sorted(file.name for file in (tmp_path / "c" / "a").iterdir())
    assert files == ["running-000002.safetensors", "running-000005.safetensors"]


def test_storage_does_not_grow_with_rounds(tmp_path: Path) -> None:
    """Without a history the cache is one pair of vectors a site, whatever the number of rounds."""
    sizes = []
    for count in (2, 9):
        cache = ContributionCache.open(tmp_path / str(count))
        feed(cache, tmp_path, random_rounds(count))
        sizes.append((cache.size_bytes(), sum(1 for _ in (tmp_path / str(count)).glob("*/*"))))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("damage", ["altered", "truncated", "missing"])
def test_a_damaged_file_is_named_and_never_used(tmp_path: Path, damage: str) -> None:
    """One byte changed, a cut tail, or a missing file: reading fails, and the check names site and file."""
    cache = ContributionCache.open(tmp_path / "c")
    feed(cache, tmp_path, random_rounds(2))
    file = next((tmp_path / "c" / "b").glob("running-*"))
    content = file.read_bytes()
    if damage == "altered":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncated":
        file.write_bytes(content[:-10])
    else:
        file.unlink()
    with pytest.raises(ContributionError, match=r"site 'b'"):
        cache.running("b", "sum")
    problems = cache.problems()
    assert len(problems) == 1
    assert str(file) in problems[0]
    assert cache.running("a", "sum").shape == (P,)


def test_a_crash_before_commit_leaves_the_cache_as_it_was(tmp_path: Path) -> None:
    """A transaction that is rolled back keeps the former sums, and the new files are swept."""
    rounds = random_rounds(3)
    cache = ContributionCache.open(tmp_path / "c")
    feed(cache, tmp_path, rounds[:2])
    before = cache.running("a", "sum")
    spool = UpdateSpool(tmp_path / "spool")
    spool.put("a", rounds[2]["a"][1], examples=1, norm=1.0)

    class CrashError(Exception):
        pass

    with pytest.raises(CrashError), cache._transaction() as session:
        cache.record(3, spool, rounds[2]["a"][1], session=session)
        raise CrashError
    np.testing.assert_array_equal(cache.running("a", "sum"), before)
    assert [file.name for file in cache.sweep()] == ["running-000003.safetensors"]
    assert cache.problems() == []


def test_a_round_cannot_be_recorded_twice(tmp_path: Path) -> None:
    """Recording a round again is an error: it would count the site's update twice."""
    cache = ContributionCache.open(tmp_path / "c")
    feed(cache, tmp_path, random_rounds(2))
    with pytest.raises(ContributionError, match="already in the cache"):
        feed(cache, tmp_path, random_rounds(1))


def test_erasing_a_site_leaves_the_others(tmp_path: Path) -> None:
    """After erasure nothing of the site is in index or directory, and the others still read."""
    cache = ContributionCache.open(tmp_path / "c", CachePolicy(history_every=1))
    feed(cache, tmp_path, random_rounds(3))
    with cache._transaction() as session:
        files = cache.erase({"b"}, session=session)
    for file in files:
        file.unlink()
    assert cache.sites() == ["a", "c"]
    assert not list((tmp_path / "c" / "b").iterdir())
    assert cache.problems() == []
    with pytest.raises(ContributionError, match="never took part"):
        cache.running("b", "sum")


def test_leftovers_of_a_cut_write_are_swept(tmp_path: Path) -> None:
    """Files that were written in part go when the server starts, or with their site; no directory stays."""
    cache = ContributionCache.open(tmp_path / "c")
    feed(cache, tmp_path, random_rounds(1))
    for site in ("a", "b"):
        (tmp_path / "c" / site / ".running-000002.safetensors.77.part").write_bytes(b"half")
    with cache._transaction() as session:
        files = cache.erase({"a"}, session=session)
    discard(files)
    assert not (tmp_path / "c" / "a").exists()
    assert [file.name for file in cache.sweep()] == [".running-000002.safetensors.77.part"]
    assert [file.name for file in (tmp_path / "c" / "b").iterdir()] == ["running-000001.safetensors"]
    assert cache.problems() == []


def test_no_transaction_stays_open_while_updates_are_read(tmp_path: Path) -> None:
    """Whoever reads updates one by one keeps nobody from writing meanwhile."""
    cache = ContributionCache.open(tmp_path / "c", CachePolicy(history_every=1))
    feed(cache, tmp_path, random_rounds(3))
    begun, ended = [], []
    real = cache._transaction

    @contextmanager
    def counted() -> Iterator[Session]:
        begun.append(1)
        with real() as session:
            yield session
        ended.append(1)

    cache._transaction = counted
    updates = cache.updates("a")
    assert next(updates)[0] == 1
    assert (len(begun), len(ended)) == (1, 1)
    assert [round_ for round_, _, _ in updates] == [2, 3]


def test_an_update_that_cannot_be_spooled_says_what_to_do(tmp_path: Path) -> None:
    """A spool that cannot be written is an error with a remedy, and the update does not count."""
    spool = UpdateSpool(tmp_path / "spool")
    (tmp_path / "spool").rmdir()
    with pytest.raises(ContributionError, match=r"'a' cannot be written .* Free space"):
        spool.put("a", np.zeros(P, dtype=np.float32), examples=1, norm=0.0)
    assert spool.updates() == []


def test_a_round_that_cannot_be_written_leaves_the_cache_as_it_was(tmp_path: Path) -> None:
    """If one site's file cannot be written, no site has the round, no part is left, and the error helps."""
    cache = ContributionCache.open(tmp_path / "c")
    rounds = random_rounds(2)
    feed(cache, tmp_path, [{s: u for s, u in rounds[0].items() if s != "b"}])
    before = cache.running("a", "sum").tobytes()
    (tmp_path / "c" / "b").write_bytes(b"no directory")
    spool = UpdateSpool(tmp_path / "spool")
    for site, (examples, update) in rounds[1].items():
        spool.put(site, update, examples=examples, norm=1.0)
    with pytest.raises(ContributionError, match=r"'b' of round 2 cannot be written.*Free space"):
        cache.record(2, spool, rounds[1]["a"][1])
    assert cache.running("a", "sum").tobytes() == before
    assert cache.last_round() == 1
    assert [f.name for f in (tmp_path / "c").glob("*/*")] == ["running-000001.safetensors"] * 2
