"""Measurement space, hallucination maps and false structure."""

from __future__ import annotations

import numpy as np
import pytest

from mri.false_structure import false_structure
from mri.fourier import fft2c, ifft2c
from mri.hallucination import hallucination_maps, slice_spaces, volume_hallucination
from mri.masks import make_mask
from mri.measurement_space import MeasurementSpace
from mri.phantoms import synthesise_volume
from mri.volume import Volume
from reconsent.config import PhantomConfig, SamplingConfig
from reconsent.errors import DataError


@pytest.fixture(scope="module")
def volume() -> Volume:
    config = PhantomConfig(slices=2, matrix=(48, 40), coils=3, noise=0.005)
    return synthesise_volume("brain", config, seed=3, name="p")


@pytest.fixture(scope="module")
def lines() -> np.ndarray:
    sampling = SamplingConfig(mask="equispaced-fraction", acceleration=4, center_fraction=0.1)
    return make_mask(sampling, 40, seed=1).mask.numpy().astype(bool)


@pytest.fixture(scope="module")
def space(volume: Volume, lines: np.ndarray) -> MeasurementSpace:
    return MeasurementSpace.of_kspace(volume.kspace[0], lines)


def test_parts_add_up_and_are_orthogonal(space: MeasurementSpace) -> None:
    """The two parts sum to the image, are orthogonal, and projecting twice changes nothing."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(48, 40)) + 1j * rng.normal(size=(48, 40))
    measured, null = space.split(image)
    assert np.allclose(measured + null, image, atol=1e-5)
    assert abs(np.vdot(measured, null)) < 1e-4 * np.linalg.norm(measured) * np.linalg.norm(null)
    assert np.allclose(space.split(measured)[0], measured, atol=1e-4)
    assert np.abs(space.split(null)[0]).max() < 1e-4


def test_null_part_is_not_seen_by_the_acquisition(volume: Volume, lines: np.ndarray) -> None:
    """Without truncation the k-space of the null part is zero on the acquired lines."""
    space = MeasurementSpace.of_kspace(volume.kspace[0], lines, truncation=1e-3)
    images = ifft2c(volume.kspace[0])
    maps = images / np.sqrt((np.abs(images) ** 2).sum(axis=0))
    rng = np.random.default_rng(0)
    image = rng.normal(size=(48, 40))
    _, null = space.split(image)
    seen = fft2c(maps * null)[:, :, lines]
    everything = fft2c(maps * image)[:, :, lines]
    assert np.linalg.norm(seen) < 2e-3 * np.linalg.norm(everything)
    assert 0 < space.dimensions < space.size


def test_single_coil_reduces_to_the_mask(lines: np.ndarray) -> None:
    """With one uniform coil the measured part is the zero-filled image."""
    rng = np.random.default_rng(1)
    image = rng.normal(size=(48, 40)).astype(np.float32)
    space = MeasurementSpace(np.ones((1, 48, 40), dtype=np.complex64), lines)
    zero_filled = ifft2c(fft2c(image) * lines)
    assert np.allclose(space.split(image)[0], zero_filled, atol=1e-5)
    assert space.dimensions == 48 * lines.sum()


def test_errors_are_sorted_by_what_the_measurements_could_show(
    volume: Volume, space: MeasurementSpace
) -> None:
    """An error in the null space shows in its map only, one in the measurement space in the other only."""
    truth = volume.target[0]
    rng = np.random.default_rng(2)
    measured, null = space.split(rng.normal(size=truth.shape).astype(np.float32) * truth.max())
    size = np.linalg.norm(null.real)
    for part, place in ((measured, 0), (null, 1)):
        maps = hallucination_maps(truth + part.real, truth, space)
        # The real part of a component is not quite in the same space: most of its energy is.
        assert np.linalg.norm(maps[place]) > 1.5 * np.linalg.norm(maps[1 - place])
    assert all(np.linalg.norm(m) < 1e-6 * size for m in hallucination_maps(truth, truth, space))


def test_energies_add_up_to_the_error(volume: Volume, lines: np.ndarray) -> None:
    """The two energies of a volume sum to its normalised mean squared error, also for a cropped image."""
    spaces = slice_spaces(volume.kspace, lines, usable=(0, 1))
    rng = np.random.default_rng(4)
    output = volume.target + 0.1 * volume.target.max() * rng.normal(size=volume.target.shape)
    for crop in (slice(None), slice(4, -4)):
        found = volume_hallucination(output[:, crop, crop], volume.target[:, crop, crop], spaces)
        error = np.sum((output - volume.target)[:, crop, crop] ** 2)
        expected = error / np.sum(volume.target[:, crop, crop].astype(float) ** 2)
        assert found.measured + found.null == pytest.approx(expected, rel=1e-4)
    only = volume_hallucination(output, volume.target, [spaces[0], None])
    assert only != volume_hallucination(output, volume.target, spaces)


def test_a_cropped_image_lies_in_the_centre_of_the_acquisition(
    volume: Volume, space: MeasurementSpace
) -> None:
    """The maps of a cropped image are those of the whole one whose error is zero outside the crop."""
    truth = volume.target[0]
    inside = slice(6, -6), slice(4, -4)
    output = truth.copy()
    output[inside] *= 1.3
    whole = hallucination_maps(output, truth, space)
    cropped = hallucination_maps(output[inside], truth[inside], space)
    for first, second in zip(whole, cropped, strict=True):
        assert np.allclose(first, second, atol=1e-6 * truth.max())


def test_shapes_that_do_not_fit_are_refused(space: MeasurementSpace) -> None:
    """Images of another size are refused by name."""
    with pytest.raises(DataError, match="does not fit"):
        hallucination_maps(np.zeros((50, 50)), np.zeros((50, 50)), space)
    with pytest.raises(DataError, match="reconstruction is"):
        hallucination_maps(np.zeros((5, 5)), np.zeros((6, 5)), space)


def test_false_structure_of_the_object_itself_is_none(volume: Volume) -> None:
    """The object scores zero, and so does the object moved by one pixel."""
    assert volume.truth is not None
    assert false_structure(volume.truth, volume.truth).false == 0.0
    moved = false_structure(np.roll(volume.truth, 1, axis=2), volume.truth)
    assert moved.false < 0.02
    assert moved.missing < 0.02


def test_a_line_that_is_not_there_is_false_and_a_blur_is_missing(volume: Volume) -> None:
    """An added line raises the false score alone, blurring the missing score alone."""
    from scipy.ndimage import gaussian_filter

    assert volume.truth is not None
    truth = volume.truth
    line = truth.copy()
    line[:, 30:32, 12:28] += 0.8 * truth.max()
    added = false_structure(line, truth)
    assert added.false > 0.2
    assert added.missing < 0.05
    blurred = false_structure(gaussian_filter(truth, (0, 2, 2)), truth)
    assert blurred.missing > 0.1
    assert blurred.false < 0.01
    with pytest.raises(DataError, match="no edges"):
        false_structure(truth, np.zeros_like(truth))
