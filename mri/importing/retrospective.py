"""From magnitude images back to a k-space that could have given them.

Such k-space is *retrospective*. It lacks what a scanner adds (true coils, true phase, correlated
noise, motion), and networks look better on it than they are; Shimron et al., *Implicit data crimes*,
PNAS 119:e2117203119 (2022). Every volume made here is marked so.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mri.fourier import fft2c, reconstruct
from mri.phantoms.coils import CoilArray
from mri.phantoms.fields import RandomField, Streams
from mri.phantoms.synthesis import correlated_noise, slice_positions
from reconsent.errors import DataError

TARGET_MAXIMUM = 1e-3
"""Of the reconstruction, the size of values in fastMRI's files."""


def images_to_kspace(
    images: npt.NDArray[np.float32],
    *,
    matrix: tuple[int, int],
    coils: int,
    maps: npt.NDArray[np.complex64] | None,
    noise: float,
    seed: int,
    where: str,
) -> npt.NDArray[np.complex64]:
    """Scan magnitude images: coil sensitivities, a smooth phase, k-space of the matrix, noise.

    The images are seen at their own resolution, and the matrix cuts the centre out of their k-space, as
    a scanner's finite matrix does; truncation ringing is part of the result.

    Parameters
    ----------
    images
        float32, ``(slices, rows, columns)``, at least as large as the matrix.
    matrix
        Rows and columns of the k-space.
    coils
        Number of simulated coils; not used with ``maps``.
    maps
        complex64, ``(coils, rows, columns)`` of the images, or ``None`` to simulate.
    noise
        Standard deviation of the real and of the imaginary part, averaged over the coils, over the
        maximum of the root sum of squares.
    seed
        Of coils, phase and noise.
    where
        The examination, for messages.

    Returns
    -------
    array
        complex64, ``(slices, coils, *matrix)``; the maximum of its root sum of squares is 1e-3.

    Raises
    ------
    DataError
        If the matrix is larger than the images.
    """
    slices, rows, columns = images.shape
    if matrix[0] > rows or matrix[1] > columns:
        raise DataError(
            f"The images of {where} have {rows}x{columns} pixels, fewer than the matrix "
            f"{matrix[0]}x{matrix[1]}.",
            "Choose a smaller matrix: detail that is not there cannot be made.",
        )
    streams = Streams(seed)
    array = CoilArray(streams("coils"), coils) if maps is None else None
    phase = RandomField(streams("phase"), 2.2, evolution=0.5)
    y, x = ((np.arange(n) + 0.5 - n / 2) * (2.0 / min(rows, columns)) for n in (rows, columns))
    count = coils if maps is None else len(maps)
    kspace = np.empty((slices, count, *matrix), dtype=np.complex64)
    for index, z in enumerate(slice_positions(slices)):
        seen = images[index] * np.exp(1j * phase.on(y, x, float(z)))
        sensitivities = maps if array is None else array.sensitivities(rows, columns, 0.5 * float(z))
        kspace[index] = crop_kspace(fft2c(sensitivities * seen), matrix)
    covariance = np.eye(count, dtype=np.complex128) if array is None else array.noise_covariance()
    deviation = noise * float(reconstruct(kspace).max())
    kspace += correlated_noise(streams("noise"), covariance, kspace.shape, deviation)
    kspace *= np.float32(TARGET_MAXIMUM / float(reconstruct(kspace).max()))
    return kspace


def crop_kspace(kspace: npt.NDArray[np.complex64], matrix: tuple[int, int]) -> npt.NDArray[np.complex64]:
    """Keep the centre of k-space; the zero frequency stays at ``n // 2`` of either axis."""
    top = kspace.shape[-2] // 2 - matrix[0] // 2
    left = kspace.shape[-1] // 2 - matrix[1] // 2
    return kspace[..., top : top + matrix[0], left : left + matrix[1]]


def crop_or_pad(images: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Crop or zero-pad the last two axes around their centre."""
    result = np.zeros((*images.shape[:-2], *shape), dtype=np.float32)
    here: list[slice] = []
    there: list[slice] = []
    for have, want in zip(images.shape[-2:], shape, strict=True):
        size = min(have, want)
        start, goal = have // 2 - size // 2, want // 2 - size // 2
        here.append(slice(start, start + size))
        there.append(slice(goal, goal + size))
    result[..., there[0], there[1]] = images[..., here[0], here[1]]
    return result


def pad_to_proportions(images: npt.NDArray[np.float32], matrix: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Zero-pad the shorter side, so that pixels keep their shape when k-space is cut to the matrix."""
    rows, columns = images.shape[-2:]
    wanted = (
        max(rows, round(columns * matrix[0] / matrix[1])),
        max(columns, round(rows * matrix[1] / matrix[0])),
    )
    return images if wanted == (rows, columns) else crop_or_pad(images, wanted)
