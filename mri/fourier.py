"""The Fourier transform of fastMRI's files: centred, orthonormal, over rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

_AXES = (-2, -1)


def fft2c(images: npt.NDArray[Any]) -> npt.NDArray[np.complex64]:
    """Image to k-space over the last two axes, equal to ``fastmri.fft2c``.

    Parameters
    ----------
    images
        Complex or real, ``(…, rows, columns)``.
    """
    shifted = scipy.fft.ifftshift(np.asarray(images, dtype=np.complex64), axes=_AXES)
    kspace: npt.NDArray[np.complex64] = scipy.fft.fftshift(
        scipy.fft.fft2(shifted, norm="ortho", axes=_AXES), axes=_AXES
    )
    return kspace


def ifft2c(kspace: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex64]:
    """K-space to image over the last two axes, equal to ``fastmri.ifft2c``."""
    shifted = scipy.fft.ifftshift(np.asarray(kspace, dtype=np.complex64), axes=_AXES)
    images: npt.NDArray[np.complex64] = scipy.fft.fftshift(
        scipy.fft.ifft2(shifted, norm="ortho", axes=_AXES), axes=_AXES
    )
    return images


def root_sum_of_squares(images: npt.NDArray[np.complex64]) -> npt.NDArray[np.float32]:
    """Combine coil images: the root of the sum over coils of squared magnitudes.

    Parameters
    ----------
    images
        complex64, ``(…, coils, rows, columns)``.

    Returns
    -------
    array
        float32, ``(…, rows, columns)``.

    References
    ----------
    Roemer et al., *The NMR phased array*, Magn Reson Med 16:192 (1990).
    """
    result: npt.NDArray[np.float32] = np.sqrt(np.sum(images.real**2 + images.imag**2, axis=-3))
    return result


def reconstruct(kspace: npt.NDArray[np.complex64]) -> npt.NDArray[np.float32]:
    """Root sum of squares of fully sampled k-space, slice by slice to save memory.

    Parameters
    ----------
    kspace
        complex64, ``(slices, coils, rows, columns)``.

    Returns
    -------
    array
        float32, ``(slices, rows, columns)``.
    """
    return np.stack([root_sum_of_squares(ifft2c(slice_)) for slice_ in kspace])
