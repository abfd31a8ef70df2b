"""Coil sensitivities for images that have none: from a file, made whole and resampled."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from reconsent.errors import ConfigError, DataError

SUPPORT = 0.1
"""Of the largest root sum of squares: below it a map is not known (ESPIRiT sets it to zero there)."""


def load_coil_maps(path: Path, coils: int | None) -> npt.NDArray[np.complex64]:
    """Read sensitivities and continue them beyond the body they were measured in.

    Parameters
    ----------
    path
        ``.npy``, or ``.npz`` with one complex array of three dimensions.
    coils
        How many to take, evenly among those there are; ``None`` takes all.

    Returns
    -------
    array
        complex64, ``(coils, rows, columns)``; the root sum of squares over all coils of the file is 1
        beyond the body and as in the file within.

    Raises
    ------
    DataError
        If the file cannot be read, or holds no or several such arrays, or NaN, or zeros only.
    ConfigError
        If it has fewer coils than wanted.
    """
    maps = _read(path)
    if not np.isfinite(maps).all():
        raise DataError(f"The coil maps in {path} hold NaN or infinity.", "Estimate them again.")
    if not maps.any():
        raise DataError(f"The coil maps in {path} are all zeros.", "Estimate them again.")
    wanted = len(maps) if coils is None else coils
    if wanted > len(maps):
        raise ConfigError(
            f"{wanted} coils are wanted, but {path} has {len(maps)}.", f"Ask for {len(maps)} or fewer."
        )
    chosen = np.linspace(0, len(maps), wanted, endpoint=False).astype(int)
    whole: npt.NDArray[np.complex64] = continue_maps(maps)[chosen]
    return whole


def continue_maps(maps: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex64]:
    """Fill in sensitivities outside the body, where estimates are zero, from those at its edge.

    Normalised convolution with wider and wider Gaussians (Knutsson and Westin, CVPR 1993): each pixel
    takes the narrowest one that reaches the body, so that the maps stay continuous.

    Parameters
    ----------
    maps
        complex64, ``(coils, rows, columns)``.
    """
    rss = np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    known = _largest_part(rss > SUPPORT * rss.max())
    filled = np.where(known, maps, 0).astype(np.complex64)
    done = known.copy()
    sigma = 2.0
    # A body smaller than a thousandth of the image never weighs more than its share.
    enough = min(1e-3, 0.1 * float(known.mean()))
    while not done.all():
        weight = scipy.ndimage.gaussian_filter(known.astype(np.float32), sigma, truncate=3.0)
        near = ~done & (weight > enough)
        for coil, values in enumerate(maps):
            smooth = _smooth(np.where(known, values, 0), sigma)
            filled[coil][near] = smooth[near] / weight[near]
        done |= near
        sigma *= 1.5
    beyond = np.sqrt(np.sum(np.abs(filled) ** 2, axis=0))
    filled[:, ~known] /= np.maximum(beyond[~known], 1e-6)
    # Each width joins the last at a small step, which the eye does not see but k-space does.
    for coil, values in enumerate(filled):
        filled[coil] = np.where(known, values, _smooth(values, 2.0))
    return filled


def resample_maps(maps: npt.NDArray[np.complex64], rows: int, columns: int) -> npt.NDArray[np.complex64]:
    """Stretch maps to another matrix by linear interpolation; complex64, ``(coils, rows, columns)``."""
    height, width = maps.shape[1:]
    y = np.clip((np.arange(rows) + 0.5) * height / rows - 0.5, 0, height - 1)
    x = np.clip((np.arange(columns) + 0.5) * width / columns - 0.5, 0, width - 1)
    grid = np.meshgrid(y, x, indexing="ij")
    result = np.empty((len(maps), rows, columns), dtype=np.complex64)
    for coil, values in enumerate(maps):
        result[coil].real = scipy.ndimage.map_coordinates(values.real, grid, order=1)
        result[coil].imag = scipy.ndimage.map_coordinates(values.imag, grid, order=1)
    return result


def _largest_part(known: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    # Smaller parts are the body folded back at the edge of the field of view, with another place's maps.
    parts, _ = scipy.ndimage.label(known)
    largest: npt.NDArray[np.bool_] = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    return largest


def _smooth(values: npt.NDArray[Any], sigma: float) -> npt.NDArray[np.complex64]:
    result = np.empty(values.shape, dtype=np.complex64)
    result.real = scipy.ndimage.gaussian_filter(values.real, sigma, truncate=3.0)
    result.imag = scipy.ndimage.gaussian_filter(values.imag, sigma, truncate=3.0)
    return result


def _read(path: Path) -> npt.NDArray[np.complex64]:
    remedy = "Give a .npy, or a .npz with one complex array (coils, rows, columns)."
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {path.name: loaded} if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded}
    except FileNotFoundError:
        raise DataError(f"There is no file {path} with coil maps.", "Check the path.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"The coil maps {path} cannot be read: {error}.", remedy) from None
    fitting = [name for name, array in arrays.items() if array.ndim == 3 and np.iscomplexobj(array)]
    if len(fitting) != 1:
        held = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
        raise DataError(f"{path} has {len(fitting)} arrays that could be coil maps; it holds {held}.", remedy)
    return arrays[fitting[0]].astype(np.complex64)
