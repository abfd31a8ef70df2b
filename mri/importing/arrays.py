"""NumPy files: magnitude images, or raw k-space."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mri.importing.examination import Examination, MagnitudeImages, MultiCoilKspace
from reconsent.errors import DataError

_IMAGES = (
    "Images are one real array (slices, rows, columns), in a .npz beside patient_id (slices,) if several."
)
_KSPACE = "K-space is one complex array (coils, rows, columns) or (slices, coils, rows, columns)."


def find_arrays(path: Path) -> list[Examination]:
    """Examinations in a ``.npy`` or ``.npz``: one a patient if there is a ``patient_id``, else one.

    Raises
    ------
    DataError
        If the file cannot be read, or no array, or several, could be meant.
    """
    arrays = _read(path)
    name, data = _main_array(path, arrays)
    if np.iscomplexobj(data):
        return [Examination(label=path.name, patient=path.stem, load=partial(_kspace, data))]
    if "patient_id" not in arrays:
        return [Examination(label=path.name, patient=path.stem, load=partial(_images, data, path))]
    patients = arrays["patient_id"].astype(str)
    if patients.shape != data.shape[:1]:
        raise DataError(
            f"patient_id in {path} has the shape {patients.shape}, and {name} {data.shape}.",
            "There must be one patient_id a slice.",
        )
    dropped = tuple(sorted(key for key in arrays if key != name))
    return [
        Examination(
            label=f"{path.name} ({patient})",
            patient=str(patient),
            load=partial(_images, data[patients == patient], path),
            dropped=dropped,
            number=f"examination {number} of {path.name}",
        )
        for number, patient in enumerate(dict.fromkeys(patients.tolist()), start=1)
    ]


def holds_kspace(path: Path) -> bool:
    """Whether the file's main array is complex.

    Raises
    ------
    DataError
        As :func:`find_arrays`.
    """
    return bool(np.iscomplexobj(_main_array(path, _read(path))[1]))


def magnitude(values: npt.NDArray[Any], *, where: str) -> npt.NDArray[np.float32]:
    """Magnitude images as float32, ``(slices, rows, columns)``.

    Raises
    ------
    DataError
        If there are NaN, clearly negative values (a phase image, or another modality), or only zeros.
    """
    images = np.asarray(values, dtype=np.float32)
    if not np.isfinite(images).all():
        raise DataError(f"The images of {where} hold NaN or infinity.", "Export them again.")
    largest = float(images.max(initial=0.0))
    if largest <= 0:
        raise DataError(f"The images of {where} are empty.", "Leave them out.")
    if float(images.min()) < -0.05 * largest:
        raise DataError(
            f"The images of {where} have negative values; they are no magnitude images.",
            "Give magnitude images; complex k-space goes into a complex array.",
        )
    return np.maximum(images, 0)


def _images(values: npt.NDArray[Any], path: Path) -> MagnitudeImages:
    return MagnitudeImages(images=magnitude(values if values.ndim == 3 else values[None], where=str(path)))


def _kspace(values: npt.NDArray[Any]) -> MultiCoilKspace:
    kspace = np.asarray(values if values.ndim == 4 else values[None], dtype=np.complex64)
    return MultiCoilKspace(kspace=kspace, image_shape=(kspace.shape[2], kspace.shape[3]))


def _main_array(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> tuple[str, npt.NDArray[Any]]:
    fitting = [name for name, array in arrays.items() if _could_be_data(array)]
    for preferred in ("image", "images", "kspace"):
        if preferred in fitting:
            return preferred, arrays[preferred]
    if len(fitting) != 1:
        held = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items()) or "nothing"
        raise DataError(
            f"{path} has {len(fitting)} arrays that could be images or k-space; it holds {held}.",
            f"{_IMAGES} {_KSPACE}",
        )
    return fitting[0], arrays[fitting[0]]


def _could_be_data(array: npt.NDArray[Any]) -> bool:
    dimensions = (3, 4) if array.dtype.kind == "c" else (2, 3)
    return array.dtype.kind in "biufc" and array.ndim in dimensions and 0 not in array.shape


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        # Opened here, since np.load leaves a damaged archive open.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {path.name: loaded} if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}.", f"{_IMAGES} {_KSPACE}") from None
