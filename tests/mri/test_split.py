"""The split of patients."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri.split import split_patients
from reconsent.errors import ConfigError, DataError

patients_of_a_site = st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=30, unique=True)
fractions = st.floats(0.01, 0.99)


@given(patients_of_a_site, fractions, st.integers(0, 2**31), st.randoms())
def test_split_is_a_partition_in_any_order(
    patients: list[str], fraction: float, seed: int, order: random.Random
) -> None:
    """Every patient is on exactly one side, neither is empty, and order and repetition do not matter."""
    split = split_patients(patients, test_fraction=fraction, seed=seed)
    assert sorted(split.train + split.test) == sorted(patients)
    assert split.train
    assert split.test
    shuffled = patients * 2
    order.shuffle(shuffled)
    assert split_patients(shuffled, test_fraction=fraction, seed=seed) == split


@given(patients_of_a_site, fractions, st.integers(0, 2**31))
def test_share_is_kept(patients: list[str], fraction: float, seed: int) -> None:
    """The number of test patients is the share, rounded, where both sides keep one."""
    count = len(split_patients(patients, test_fraction=fraction, seed=seed).test)
    assert abs(count - fraction * len(patients)) <= 0.5 or count in (1, len(patients) - 1)


@given(patients_of_a_site, fractions, st.integers(0, 2**31))
def test_new_patient_moves_at_most_one_other(patients: list[str], fraction: float, seed: int) -> None:
    """A patient who is added leaves all but one of the others where they were."""
    before = set(split_patients(patients, test_fraction=fraction, seed=seed).test)
    after = set(split_patients([*patients, "newcomer"], test_fraction=fraction, seed=seed).test)
    assert len((before ^ after) - {"newcomer"}) <= 1


def test_seed_matters() -> None:
    """Different seeds give different splits."""
    patients = [f"p{index}" for index in range(20)]
    splits = {split_patients(patients, test_fraction=0.5, seed=seed).test for seed in range(10)}
    assert len(splits) == 10


@pytest.mark.parametrize("patients", [[], ["only"], ["only", "only"]])
def test_one_patient_cannot_be_split(patients: list[str]) -> None:
    """Fewer than two patients are refused."""
    with pytest.raises(DataError, match="two patients at least"):
        split_patients(patients, test_fraction=0.5, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_share_must_be_a_share(fraction: float) -> None:
    """A share that is none is refused."""
    with pytest.raises(ConfigError):
        split_patients(["a", "b"], test_fraction=fraction, seed=0)
