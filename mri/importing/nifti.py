"""NIfTI images."""

from __future__ import annotations

import zlib
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError

from mri.importing.arrays import magnitude
from mri.importing.examination import Examination, MagnitudeImages
from mri.importing.options import Axis
from reconsent.errors import DataError

_FREE_TEXT = ("descrip", "aux_file", "intent_name", "db_name", "data_type")

# Canonical axes point right, anterior, superior. Each plane as a radiologist looks at it: slice axis,
# row axis and column axis, rows and columns running against the canonical direction.
_PLANES: dict[Axis, tuple[int, int, int]] = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


def find_nifti(path: Path, axis: Axis) -> list[Examination]:
    """The one examination of a ``.nii`` or ``.nii.gz``; slices are planes of the patient's body.

    Raises
    ------
    DataError
        If the file is no NIfTI file, or not three-dimensional.
    """
    image = _open(path)
    shape = image.shape
    if len(shape) not in (3, 4) or 0 in shape:
        raise DataError(f"The image {path} has the shape {shape}.", "Give a three-dimensional image.")
    fields = [name for name in _FREE_TEXT if name in image.header and bytes(image.header[name]).strip(b"\0 ")]
    if len(image.header.extensions):
        fields.append("extensions")
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    return [
        Examination(
            label=path.name, patient=name, load=partial(_load, path, axis), dropped=(*fields, "file name")
        )
    ]


def _open(path: Path) -> Any:
    try:
        return nib.load(path)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError) as error:
        raise DataError(f"{path} is not a readable NIfTI file: {error}.", "Export it again.") from None


def _load(path: Path, axis: Axis) -> MagnitudeImages:
    try:
        image = nib.as_closest_canonical(_open(path))
        values: npt.NDArray[Any] = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Copy or export it again.") from None
    remarks: tuple[str, ...] = ()
    if values.ndim == 4:
        if values.shape[3] > 1:
            remarks = (f"{path.name}: the first of {values.shape[3]} volumes was taken",)
        values = values[..., 0]
    order = _PLANES[axis]
    size = [float(image.header.get_zooms()[place]) for place in order]
    planes = values.transpose(order)[:, ::-1, ::-1]
    return MagnitudeImages(
        images=magnitude(planes, where=str(path)),
        notes={"slice_mm": size[0], "pixel_rows_mm": size[1], "pixel_columns_mm": size[2], "plane": axis},
        remarks=remarks,
    )
