"""DICOM series of magnitude images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError

from mri.directory import Problem
from mri.importing.arrays import magnitude
from mri.importing.examination import Examination, MagnitudeImages, Notes
from reconsent.errors import DataError

_IDENTIFYING_VR = frozenset({"PN", "DA", "DT", "TM", "UI", "LO", "SH", "ST", "LT", "UT", "AS", "UC", "UR"})
_ODD = (TypeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError)
"""What pydicom, and reading its values, raise on attributes that break the standard."""
_TAKEN = {
    "RepetitionTime": "repetition_time_ms",
    "EchoTime": "echo_time_ms",
    "MagneticFieldStrength": "field_strength_tesla",
    "SliceThickness": "slice_mm",
}


def find_dicom(paths: Sequence[Path], *, keep_identifiers: bool) -> tuple[list[Examination], list[Problem]]:
    """Group DICOM files into series; each is one examination of slices in order of their position.

    Only pixels, their size, and repetition time, echo time and field strength are taken over; every
    other attribute is left behind, and the identifying ones are named in ``dropped``.

    Parameters
    ----------
    paths
        Files; those that are no DICOM files, or hold no image (``DICOMDIR``, reports), are passed over.
    keep_identifiers
        Accept images that declare burned-in annotations.

    Returns
    -------
    examinations, problems
        The series, and the files that break the standard.

    Raises
    ------
    DataError
        If there is no DICOM image among them.
    """
    series: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    dropped: dict[str, set[str]] = defaultdict(set)
    problems: list[Problem] = []
    for path in paths:
        try:
            with _reading(path):
                header = _header(path)
                if header is None or "Rows" not in header:
                    continue
                uid = str(header.get("SeriesInstanceUID", path.parent))
                dropped[uid].update(_identifying(header))
                series[uid].append((path, header))
        except DataError as error:
            problems.append(Problem(path.name, error.problem, error.remedy))
    if not series and not problems:
        raise DataError(f"None of {len(paths)} files is a DICOM image.", "Check the path, or give --kind.")
    found = []
    for number, (uid, members) in enumerate(sorted(series.items()), start=1):
        first = members[0][1]
        label = f"series {first.get('SeriesNumber', '?')} in {members[0][0].parent}"
        shown = f"examination {number} (series {first.get('SeriesNumber', '?')})"
        found.append(
            Examination(
                label=f"{label} ({uid})" if keep_identifiers else label,
                patient=str(first.get("PatientID", "") or first.get("PatientName", "") or uid),
                load=partial(_load, members, label if keep_identifiers else shown, keep_identifiers),
                dropped=tuple(sorted(dropped[uid])),
                number=shown,
            )
        )
    return found, problems


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except _ODD as error:
        raise DataError(
            f"An attribute of the DICOM file {path} is not as the standard wants it: {error}.",
            "Export the file again, or leave it out.",
        ) from None


def _header(path: Path) -> Any:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError):
        return None


def _identifying(header: Any) -> set[str]:
    names = set()
    for element in header.iterall():
        if element.tag.is_private:
            names.add("private elements")
        elif element.VR in _IDENTIFYING_VR and element.value not in (None, ""):
            names.add(element.keyword or str(element.tag))
    return names


def _load(members: Sequence[tuple[Path, Any]], label: str, keep_identifiers: bool) -> MagnitudeImages:
    _refuse_unsuitable(members, label, keep_identifiers)
    ordered = sorted(members, key=_place)
    frames = [_pixels(path) for path, _ in ordered]
    shapes = sorted({frame.shape[1:] for frame in frames})
    if len(shapes) > 1:
        sizes = ", ".join("x".join(map(str, shape)) for shape in shapes)
        raise DataError(
            f"The images of {label} differ in size: {sizes}.",
            "Export a series of one size; localisers have several and are of no use.",
        )
    images = magnitude(np.concatenate(frames), where=label)
    path, first = ordered[0]
    with _reading(path):
        notes: Notes = {
            note: float(first[tag].value)
            for tag, note in _TAKEN.items()
            if tag in first and first[tag].value not in (None, "")
        }
        spacing = first.get("PixelSpacing")
        if spacing:
            notes |= {"pixel_rows_mm": float(spacing[0]), "pixel_columns_mm": float(spacing[1])}
    return MagnitudeImages(images=images, notes=notes)


def _refuse_unsuitable(members: Sequence[tuple[Path, Any]], label: str, keep_identifiers: bool) -> None:
    for path, header in members:
        with _reading(path):
            modality = str(header.get("Modality", "MR"))
            samples = int(header.get("SamplesPerPixel", 1))
            image_type = {str(part).upper() for part in header.get("ImageType", [])}
        if modality != "MR":
            raise DataError(f"The {label} is of the modality {modality}, not MR.", "Leave it out.")
        if samples != 1:
            raise DataError(f"The {label} has coloured images.", "Give the original magnitude images.")
        if {"P", "PHASE", "PHASE MAP"} & image_type:
            raise DataError(f"The {label} has phase images.", "Give the magnitude images.")
        if str(header.get("BurnedInAnnotation", "NO")).upper() == "YES" and not keep_identifiers:
            raise DataError(
                f"The {label} declares text burned into its images, which may name the patient.",
                "Leave it out, or give --keep-identifiers if the text names nobody.",
            )


def _place(member: tuple[Path, Any]) -> tuple[float, float, float]:
    """Along the slice normal, then in time, then by number."""
    path, header = member
    with _reading(path):
        position, orientation = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
        along = 0.0
        if position and orientation:
            axes = np.asarray(orientation, dtype=float).reshape(2, 3)
            along = round(float(np.dot(np.cross(axes[0], axes[1]), np.asarray(position, dtype=float))), 3)
        return along, float(header.get("TriggerTime") or 0.0), float(header.get("InstanceNumber") or 0.0)


def _pixels(path: Path) -> npt.NDArray[np.float32]:
    """Frames of one file, rescaled; float32, ``(frames, rows, columns)``."""
    try:
        image = pydicom.dcmread(path)
        values = image.pixel_array.astype(np.float32)
    except (
        OSError,
        EOFError,
        ValueError,
        AttributeError,
        TypeError,
        KeyError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise DataError(
            f"The pixels of {path} cannot be read: {error}.",
            "Copy the file again; if it is compressed, decompress it first (gdcmconv --raw, dcmdjpeg).",
        ) from None
    with _reading(path):
        slope, intercept = (
            float(image.get("RescaleSlope", 1) or 1),
            float(image.get("RescaleIntercept", 0) or 0),
        )
    values = values * slope + intercept
    if str(image.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        values = values.max() - values
    return values if values.ndim == 3 else values[None]
