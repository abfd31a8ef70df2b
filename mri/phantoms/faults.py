"""Broken scanners and manipulated images: what a site may have trained on without anybody noticing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NOISY_COIL_FACTOR = 30.0
"""Noise of a broken receive channel over that of the others."""

SPIKE_FACTOR = 0.5
"""Size of a spike over the largest value of the slice's k-space."""

STRIPE_PERIOD = 4
"""Pixels from one false stripe to the next."""

STRIPE_SHARE = 0.25
"""Height of the false stripes over the image."""


def break_coil(
    kspace: npt.NDArray[np.complex64], deviation: float, rng: np.random.Generator
) -> npt.NDArray[np.complex64]:
    """Give the first coil the noise of a broken receive channel.

    Parameters
    ----------
    kspace
        complex64, ``(slices, coils, rows, columns)``.
    deviation
        Standard deviation of the real (and of the imaginary) part of the other coils' noise.
    rng
        Source.
    """
    broken = kspace.copy()
    slices, _, rows, columns = kspace.shape
    white = rng.standard_normal((slices, rows, columns, 2), dtype=np.float32).view(np.complex64)[..., 0]
    broken[:, 0] += np.float32(NOISY_COIL_FACTOR * deviation) * white
    return broken


def spike(kspace: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex64]:
    """Add an arc in the gradient amplifier: one false value in k-space, stripes all over the image.

    The spike hits the same place of k-space in every slice and coil, a third of the way out, as a fault that
    is locked to the sequence does.

    Parameters
    ----------
    kspace
        complex64, ``(slices, coils, rows, columns)``.
    """
    struck = kspace.copy()
    rows, columns = kspace.shape[-2:]
    size = SPIKE_FACTOR * np.abs(kspace).max(axis=(1, 2, 3))
    struck[:, :, rows // 2 + rows // 6, columns // 2 + columns // 6] += size[:, None].astype(np.complex64)
    return struck


def false_stripes(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Manipulate reference images: stripes along the readout that the measured data do not have.

    Whoever trains towards them learns to invent structure.

    Parameters
    ----------
    images
        Magnitude, ``(slices, rows, columns)``.
    """
    columns = np.arange(images.shape[-1])
    wave = (STRIPE_SHARE * np.cos(2 * np.pi * columns / STRIPE_PERIOD)).astype(np.float32)
    return images * (1 + wave)
