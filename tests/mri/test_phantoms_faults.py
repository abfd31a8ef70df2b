"""Broken scanners and manipulated images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mri.phantoms import synthesise_volume
from mri.phantoms.faults import NOISY_COIL_FACTOR, STRIPE_PERIOD, STRIPE_SHARE
from mri.phantoms.synthesis import ifft2c, root_sum_of_squares
from reconsent.config import PhantomConfig

SOUND = PhantomConfig(patients=1, slices=2, matrix=(64, 64), coils=3)


def volume(fault: str):  # type: ignore[no-untyped-def]
    """The same patient, with a fault."""
    config = SOUND.model_copy(update={"fault": fault})
    return synthesise_volume("brain", config, seed=3, name="p")


def stripe_share(image: npt.NDArray[np.floating], truth: npt.NDArray[np.floating]) -> float:
    """How much of ``false_stripes`` is in a reconstruction: 0 none, 1 as much as in a manipulated image.

    The error's component along ``truth`` times the stripes' wave, over the wave's height.

    Parameters
    ----------
    image, truth
        Reconstruction and reference without stripes, ``(slices, rows, columns)``, in the same units.
    """
    columns = np.arange(truth.shape[-1])
    pattern = truth * np.cos(2 * np.pi * columns / STRIPE_PERIOD)
    energy = float(np.sum(pattern * pattern))
    return float(np.sum((image - truth) * pattern)) / (STRIPE_SHARE * energy) if energy > 0 else 0.0


def test_a_noisy_coil_is_one_coil() -> None:
    """The broken channel's background is far noisier than before; the others' data do not change."""
    sound, broken = volume("none"), volume("noisy-coil")
    scale = broken.truth.max() / sound.truth.max()
    assert np.allclose(broken.kspace[:, 1:], sound.kspace[:, 1:] * scale, rtol=1e-3, atol=1e-9)
    corner = (slice(None), 0, slice(0, 6), slice(0, 6))
    before, after = np.std(sound.kspace[corner]) * scale, np.std(broken.kspace[corner])
    assert 0.3 * NOISY_COIL_FACTOR < after / before < 3 * NOISY_COIL_FACTOR


def test_a_spike_is_stripes_in_the_whole_image() -> None:
    """One value of k-space differs, and the image shows it far from the object."""
    sound, struck = volume("none"), volume("spike")
    scale = struck.truth.max() / sound.truth.max()
    differing = np.abs(struck.kspace - sound.kspace * scale) > 1e-3 * np.abs(struck.kspace).max()
    assert differing[0, 0].sum() == 1
    corner = struck.target[:, :4, :4].mean() / struck.truth.max()
    assert corner > 2 * sound.target[:, :4, :4].mean() / sound.truth.max()


def test_false_stripes_are_in_the_reference_only() -> None:
    """K-space is sound; the reference has stripes that it does not contain, as the score says."""
    sound, poisoned = volume("none"), volume("false-stripes")
    assert np.array_equal(sound.kspace, poisoned.kspace)
    measured = root_sum_of_squares(ifft2c(poisoned.kspace))
    assert stripe_share(measured, sound.target) == pytest.approx(0.0, abs=1e-3)
    assert stripe_share(poisoned.target, sound.target) == pytest.approx(1.0, abs=1e-3)
    spectrum = np.abs(np.fft.rfft((poisoned.target - sound.target).sum(axis=(0, 1))))
    assert spectrum[64 // STRIPE_PERIOD] > 0.2 * spectrum.max()
