"""What k-space and its target must satisfy before anything is trained on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mri.fourier import ifft2c, root_sum_of_squares
from reconsent.errors import DataError

MIN_CORRELATION = 0.5
"""Of target and root sum of squares. An image that is not centred, or another slice, gives about 0."""

MAX_EMPTY_FRACTION = 0.3
"""Of the samples between the first and last acquired row and column; an elliptical shutter leaves 0.21."""

SMALLEST = 1e-15
"""Of a slice's largest sample; its reciprocal is the greatest."""


class UndersampledError(DataError):
    """K-space has gaps, so that it is no reference to train against."""


def check_kspace(kspace: npt.NDArray[np.complex64], *, where: str) -> tuple[int, int]:
    """Refuse k-space that cannot serve as a fully sampled reference.

    Parameters
    ----------
    kspace
        complex64, ``(slices, coils, rows, columns)``.
    where
        The file, for messages.

    Returns
    -------
    int, int
        First and one-past-last column that holds samples in any slice.

    Raises
    ------
    DataError
        If it holds NaN, infinity or absurdly large or small numbers, if a slice or a coil is empty, or if
        it is not centred.
    UndersampledError
        If samples between the acquired ones are missing.
    """
    acquired = np.zeros(kspace.shape[3], dtype=bool)
    for index, slice_ in enumerate(kspace):
        if not np.isfinite(slice_).all():
            count = int(np.count_nonzero(~np.isfinite(slice_)))
            raise DataError(
                f"Slice {index} of the k-space in {where} holds {count} samples that are NaN or infinite.",
                "Export the file again; if the scanner's data are so, leave the volume out.",
            )
        largest = float(max(np.abs(slice_.real).max(), np.abs(slice_.imag).max()))
        if largest > 1 / SMALLEST or 0 < largest < SMALLEST:
            raise DataError(
                f"The largest sample of slice {index} in {where} is {largest:.1e}.",
                "Scale the volume: the squares of such numbers leave the range of single precision.",
            )
        live = slice_ != 0
        silent = [int(coil) for coil in np.flatnonzero(~live.any(axis=(1, 2)))]
        if len(silent) == len(slice_):
            raise DataError(
                f"Slice {index} of the k-space in {where} is all zeros.",
                "Remove that slice: `reconsent data import FILE DIRECTORY --drop-empty` does.",
            )
        if silent:
            coils = ", ".join(map(str, silent))
            raise DataError(
                f"Coil {coils} of slice {index} in {where} is all zeros; a sensitivity map divides by it.",
                "Remove that coil everywhere: `reconsent data import FILE DIRECTORY --drop-empty` does.",
            )
        _check_sampling(live.any(axis=0), index, where)
        acquired |= live.any(axis=(0, 1))
    _check_centre(kspace, where)
    columns = np.flatnonzero(acquired)
    return int(columns[0]), int(columns[-1]) + 1


def check_target(
    target: npt.NDArray[np.float32], kspace: npt.NDArray[np.complex64], *, where: str, name: str
) -> None:
    """Refuse a target that is not an image of this k-space.

    Parameters
    ----------
    target
        float32, ``(slices, crop rows, crop columns)``.
    kspace
        complex64, ``(slices, coils, rows, columns)``.
    where, name
        The file and the dataset in it, for messages.

    Raises
    ------
    DataError
        If the number of slices differs, if there are NaN, negative or only zero values, or if the
        brightest slice does not look like the root sum of squares of its k-space.
    """
    remedy = f"Remove {name} from the file: it is then computed from the k-space."
    if target.ndim != 3 or target.shape[0] != kspace.shape[0] or 0 in target.shape:
        raise DataError(
            f"The {name} in {where} has the shape {target.shape}, and the k-space {kspace.shape}; "
            f"({kspace.shape[0]}, rows, columns) was expected.",
            remedy,
        )
    if not np.isfinite(target).all():
        raise DataError(f"The {name} in {where} holds NaN or infinity.", remedy)
    if target.min() < 0:
        raise DataError(f"The {name} in {where} holds negative values; it must be a magnitude.", remedy)
    dark = np.flatnonzero(target.max(axis=(1, 2)) <= 0)
    if dark.size:
        raise DataError(f"Slice {dark[0]} of the {name} in {where} is all zeros.", remedy)
    brightest = int(target.sum(axis=(1, 2)).argmax())
    image = root_sum_of_squares(ifft2c(kspace[brightest : brightest + 1]))[0]
    shape = (min(image.shape[0], target.shape[1]), min(image.shape[1], target.shape[2]))
    correlation = _correlation(centre_crop(image, shape), centre_crop(target[brightest], shape))
    if correlation < MIN_CORRELATION:
        raise DataError(
            f"The {name} in {where} does not look like the root sum of squares of its k-space: in slice "
            f"{brightest} their correlation is {correlation:.2f}.",
            "The transform is fastMRI's, centred in image and k-space; slices must be in the same order. If "
            f"they are, remove {name} from the file: it is then computed.",
        )


def centre_crop(image: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Crop the last two axes around their centre, as ``fastmri.data.transforms.center_crop``."""
    top, left = (image.shape[-2] - shape[0]) // 2, (image.shape[-1] - shape[1]) // 2
    return image[..., top : top + shape[0], left : left + shape[1]]


def _check_sampling(live: npt.NDArray[np.bool_], index: int, where: str) -> None:
    """Refuse gaps between the acquired samples of one slice; ``live`` is ``(rows, columns)``."""
    rows, columns = np.flatnonzero(live.any(axis=1)), np.flatnonzero(live.any(axis=0))
    # Zeros at the edges are zero-filling (partial Fourier, padding); zeros in between were left out.
    inside = live[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    gaps = int(np.count_nonzero(~inside.any(axis=0)))
    empty = 1.0 - float(inside.mean())
    if gaps or empty > MAX_EMPTY_FRACTION:
        missing = f"{gaps} of {inside.shape[1]} phase encodes" if gaps else f"{empty:.0%} of the samples"
        raise UndersampledError(
            f"The k-space in {where} is undersampled: {missing} of slice {index} were not acquired.",
            "Training needs a fully sampled reference. fastMRI's test and challenge files have none: use "
            "its training and validation files.",
        )


def _check_centre(kspace: npt.NDArray[np.complex64], where: str) -> None:
    # The zero frequency in a corner only changes the image's phase: the target would not show it, but
    # masks would leave out the centre.
    energy = sum(np.sum(slice_.real**2 + slice_.imag**2, axis=0) for slice_ in kspace)
    rows, columns = kspace.shape[2:]
    row, column = (int(place) for place in np.unravel_index(np.argmax(energy), (rows, columns)))
    if abs(row - rows // 2) > rows / 4 or abs(column - columns // 2) > columns / 4:
        raise DataError(
            f"The k-space in {where} is not centred: its largest sample is at row {row} of {rows} and column "
            f"{column} of {columns}.",
            "Shift the zero frequency to the middle of rows and columns (numpy.fft.fftshift).",
        )


def _correlation(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    x, y = a.astype(np.float64) - a.mean(dtype=np.float64), b.astype(np.float64) - b.mean(dtype=np.float64)
    spread = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    # Two flat images agree; there is nothing to tell apart.
    return float(np.sum(x * y)) / spread if spread > 0 else 1.0
