"""What is made up in the remaining images, of phantoms: controls that must fail, and one that must pass."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mri.false_structure import false_structure
from mri.phantoms import synthesise_volume
from reconsent.config import PhantomConfig
from reconsent.errors import ConfigError, DataError
from unlearning.verification.false_structure_gap import false_structure_gap
from unlearning.verification.finding import with_control
from unlearning.verification.limits import limits_of

PATIENTS = 8


def images(made_up: float, seed: int) -> list[float]:
    """Scores of reconstructions with noise, and with so much of a knee's edges in the brains."""
    generator = np.random.default_rng(seed)
    config = PhantomConfig(slices=1, matrix=(48, 48), coils=2)
    scores = []
    for patient in range(PATIENTS):
        truth = synthesise_volume("brain", config, seed=patient, name="b").truth
        other = synthesise_volume("knee", config, seed=patient, name="k").truth
        assert truth is not None and other is not None
        edges = other - gaussian_filter(other, (0, 2, 2))
        noise = gaussian_filter(generator.standard_normal(truth.shape), (0, 1, 1)) * 0.05 * truth.max()
        made = truth + noise + made_up * truth.max() / other.max() * edges
        scores.append(false_structure(made, truth).false)
    return scores


@pytest.fixture(scope="module")
def oracle() -> list[float]:
    return images(0.0, seed=1)


def test_another_oracle_passes(oracle: list[float]) -> None:
    """Other noise, as much of nothing."""
    finding = false_structure_gap(images(0.0, seed=2), oracle).finding()
    assert finding.verdict == "passed" and finding.check == "false-structure/retain-test"
    assert len(limits_of(finding.check)) > 100


def test_who_still_puts_the_leavers_organ_into_images_fails(oracle: list[float]) -> None:
    """Nothing done: edges of knees in brains; and one that puts in less than it should is no better."""
    nothing = false_structure_gap(images(0.5, seed=3), oracle).finding()
    assert nothing.verdict == "failed" and nothing.value > 0.015
    other_way = false_structure_gap(oracle, images(0.5, seed=3)).finding()
    assert other_way.verdict == "failed" and other_way.value < -0.015


def test_a_collapsed_model_fails_where_the_oracle_makes_anything_up() -> None:
    """An empty image shows no edges at all."""
    makes_up = images(0.5, seed=1)
    assert false_structure_gap(np.zeros(PATIENTS), makes_up).finding().verdict == "failed"


def test_where_the_original_passes_nothing_could_have_been_noticed(oracle: list[float]) -> None:
    """Then passing is undecided."""
    passed = false_structure_gap(images(0.0, seed=2), oracle).finding()
    original = false_structure_gap(images(0.01, seed=4), oracle).finding()
    assert original.verdict == "passed"
    assert with_control(passed, original).verdict == "undecided"
    few = false_structure_gap([0.013, 0.008, 0.019], [0.0, 0.0, 0.0]).finding()
    assert few.verdict == "undecided"
    found = with_control(passed, few)
    assert found.verdict == "undecided" and "lies within the same bounds" in found.words
    beyond = false_structure_gap([0.05, 0.0, 0.0], [0.0, 0.0, 0.0]).finding()
    assert beyond.verdict == "undecided" and with_control(passed, beyond) == passed


def test_too_few_or_too_different_patients_decide_nothing() -> None:
    """One patient is no test, patients about the margin neither; two oracles tell their distance."""
    assert false_structure_gap([0.02, 0.02], [0.0, 0.0], ["a", "a"]).finding().verdict == "undecided"
    assert false_structure_gap([0.05, 0.0, 0.0], [0.0, 0.0, 0.03]).finding().verdict == "undecided"
    assert false_structure_gap([0.1, 0.1], [[0.1, 0.1], [0.2, 0.2]]).reference == pytest.approx(0.1)


def test_what_does_not_fit_is_refused() -> None:
    """Scores of other volumes, and no margin."""
    with pytest.raises(DataError, match="same volumes"):
        false_structure_gap([0.1, 0.2], [0.1])
    with pytest.raises(ConfigError, match="not positive"):
        false_structure_gap([0.1, 0.2], [0.1, 0.2], margin=0.0)
