"""ISMRMRD raw data (MRD version 1, HDF5): Cartesian, two-dimensional, several slices and coils."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import numpy.typing as npt
from ismrmrd import xsd

from mri.importing.examination import Examination, MultiCoilKspace, Notes
from reconsent.errors import DataError

_NOT_IMAGING = (
    ismrmrd.ACQ_IS_NOISE_MEASUREMENT,
    ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,
    ismrmrd.ACQ_IS_NAVIGATION_DATA,
    ismrmrd.ACQ_IS_PHASECORR_DATA,
    ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
    ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
    ismrmrd.ACQ_IS_RTFEEDBACK_DATA,
    ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA,
)
_COUNTERS = ("contrast", "phase", "repetition", "set")
_SUBJECT = ("subjectInformation", "studyInformation", "measurementInformation")


def is_ismrmrd(file: h5py.File) -> bool:
    """Whether an HDF5 file holds ISMRMRD raw data."""
    return _group(file) is not None


def find_ismrmrd(path: Path) -> list[Examination]:
    """The examination in an ISMRMRD file.

    Raises
    ------
    DataError
        If the file holds no ISMRMRD data, or its header is invalid.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            group = _group(file)
            if group is None:
                raise DataError(f"{path} holds no ISMRMRD raw data.", "Give --kind if it is another format.")
            document = bytes(file[group]["xml"][0])
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.", "Copy it again.") from None
    try:
        header = xsd.CreateFromDocument(document)
    except (ValueError, TypeError) as error:
        raise DataError(f"The ISMRMRD header of {path} is invalid: {error}.", "Convert it again.") from None
    subject = header.subjectInformation
    patient = (subject.patientID or subject.patientName) if subject else None
    return [
        Examination(
            label=path.name,
            patient=patient or path.stem,
            load=partial(_load, path, group, header),
            dropped=tuple(sorted(_identifying(header))),
        )
    ]


def _group(file: h5py.File) -> str | None:
    for name, item in file.items():
        if isinstance(item, h5py.Group) and "xml" in item and "data" in item:
            return str(name)
    return None


def _identifying(header: Any) -> Iterator[str]:
    for name in _SUBJECT:
        part = getattr(header, name)
        if part is not None:
            yield from (
                f"{name}/{field}" for field, value in vars(part).items() if value not in (None, [], "")
            )
    system = header.acquisitionSystemInformation
    for field in ("institutionName", "stationName", "deviceID", "deviceSerialNumber"):
        if system is not None and getattr(system, field, None):
            yield f"acquisitionSystemInformation/{field}"
    if header.userParameters is not None:
        yield "userParameters"


def _load(path: Path, group: str, header: Any) -> MultiCoilKspace:
    encoding = _check_encoding(path, header)
    encoded, image = encoding.encodedSpace.matrixSize, encoding.reconSpace.matrixSize
    limits = encoding.encodingLimits.kspace_encoding_step_1
    shift = 0 if limits is None else encoded.y // 2 - limits.center
    lines, left_out = _read_lines(path, group)
    slices = 1 + max(line.idx.slice for line in lines)
    coils = lines[0].active_channels
    kspace = np.zeros((slices, coils, encoded.x, encoded.y), dtype=np.complex64)
    averages = np.zeros((slices, encoded.y), dtype=np.int64)
    for line in lines:
        column = line.idx.kspace_encode_step_1 + shift
        if not 0 <= column < encoded.y or line.active_channels != coils:
            raise DataError(
                f"A readout of {path} has the phase encode {column} of {encoded.y} and "
                f"{line.active_channels} of {coils} coils.",
                "Header and data contradict each other; convert the raw data again.",
            )
        rows, data = _readout(line, encoded.x, path)
        kspace[line.idx.slice, :, rows, column] += data
        averages[line.idx.slice, column] += 1
    kspace /= np.maximum(averages, 1)[:, None, None, :]
    return MultiCoilKspace(
        kspace=kspace,
        image_shape=(min(image.x, encoded.x), min(image.y, encoded.y)),
        notes=_notes(header, encoding),
        remarks=left_out,
    )


def _check_encoding(path: Path, header: Any) -> Any:
    encoding = header.encoding[0]
    trajectory = encoding.trajectory.value
    if trajectory != "cartesian":
        raise DataError(
            f"{path} was acquired along a {trajectory} trajectory, not a Cartesian one.",
            "Its k-space fits no Cartesian mask. Reconstruct it with its vendor's or your own software and "
            "import the magnitude images.",
        )
    if encoding.encodedSpace.matrixSize.z > 1:
        raise DataError(
            f"{path} is a three-dimensional acquisition ({encoding.encodedSpace.matrixSize.z} partitions).",
            "Transform it along the partitions first, and give the result as .npy (slices, coils, rows, "
            "columns).",
        )
    return encoding


def _read_lines(path: Path, group: str) -> tuple[list[Any], tuple[str, ...]]:
    """Imaging readouts of the first contrast, phase, repetition and set; and what else there was."""
    lines: list[Any] = []
    others = 0
    try:
        with ismrmrd.Dataset(str(path), group, create_if_needed=False) as dataset:
            for number in range(dataset.number_of_acquisitions()):
                line = dataset.read_acquisition(number)
                if any(line.is_flag_set(flag) for flag in _NOT_IMAGING):
                    continue
                if line.is_flag_set(ismrmrd.ACQ_IS_REVERSE):
                    raise DataError(
                        f"{path} has readouts in alternating directions (EPI).",
                        "They need a phase correction first; import the reconstructed images instead.",
                    )
                if any(getattr(line.idx, counter) for counter in _COUNTERS):
                    others += 1
                else:
                    lines.append(line)
    except (OSError, LookupError) as error:
        raise DataError(f"The readouts of {path} cannot be read: {error}.", "Copy it again.") from None
    if not lines:
        raise DataError(f"{path} has no imaging readouts.", "Check that it is the raw data of a scan.")
    remark = f"{path.name}: {others} readouts of further contrasts, phases, repetitions or sets were left out"
    return lines, ((remark,) if others else ())


def _readout(line: Any, rows: int, path: Path) -> tuple[slice, npt.NDArray[np.complex64]]:
    """Rows that a readout fills, and its samples ``(coils, samples)`` without those to be discarded."""
    last = line.number_of_samples - line.discard_post
    data = line.data[:, line.discard_pre : last]
    # The echo belongs on the zero frequency; an early echo leaves the first rows empty.
    start = rows // 2 - (line.center_sample - line.discard_pre)
    if start < 0 or start + data.shape[1] > rows:
        raise DataError(
            f"A readout of {path} has {data.shape[1]} samples with its centre at {line.center_sample}, which "
            f"does not fit {rows} rows.",
            "Correct encodedSpace/matrixSize/x in its header.",
        )
    return slice(start, start + data.shape[1]), data


def _notes(header: Any, encoding: Any) -> Notes:
    notes: Notes = {}
    system, sequence = header.acquisitionSystemInformation, header.sequenceParameters
    if system is not None and system.systemFieldStrength_T:
        notes["field_strength_tesla"] = float(system.systemFieldStrength_T)
    if sequence is not None and sequence.TR:
        notes["repetition_time_ms"] = float(sequence.TR[0])
    if sequence is not None and sequence.TE:
        notes["echo_time_ms"] = float(sequence.TE[0])
    field, matrix = encoding.reconSpace.fieldOfView_mm, encoding.reconSpace.matrixSize
    notes |= {
        "pixel_rows_mm": field.x / matrix.x,
        "pixel_columns_mm": field.y / matrix.y,
        "slice_mm": float(field.z),
    }
    return notes
