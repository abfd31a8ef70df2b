"""Reading and writing volumes in fastMRI's HDF5 layout.

A file written here is also read by ``fastmri.data.mri_data.SliceDataset`` and by ``mrpro``. Beside
fastMRI's own attributes it holds ``reconsent_organ``, ``reconsent_provenance`` and the volume's notes,
each prefixed with ``reconsent_``, and for phantoms a dataset ``truth``.

References
----------
Zbontar et al., *fastMRI: An Open Dataset and Benchmarks for Accelerated MRI*, arXiv:1811.08839 (2018).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import h5py
import numpy as np

from mri.fourier import reconstruct
from mri.ismrmrd_header import EncodingGeometry, compose_header, parse_header
from mri.volume import Provenance, Volume
from mri.volume_checks import centre_crop, check_kspace, check_target
from reconsent.errors import DataError
from reconsent.files import sync_directory

PREFIX = "reconsent_"
_KNEE = ("CORPD",)
_BRAIN = ("AXT1", "AXT2", "AXFLAIR")
_LAYOUT = "See docs/data.md for the layout, and `reconsent data import` for other formats."


# What h5py raises on a damaged file depends on which byte is damaged.
_HDF5_ERRORS = (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError, OverflowError)

_MAX_COMPRESSION = 1000


@dataclass(frozen=True, slots=True)
class VolumeHeader:
    """What a file says of its volume without its k-space being read.

    Attributes
    ----------
    name, patient, organ, acquisition, provenance, padding
        As in :class:`~mri.volume.Volume`.
    slices, coils, rows, columns
        Shape of the k-space.
    target_shape
        Rows and columns of the target.
    """

    name: str
    patient: str
    organ: str
    acquisition: str
    slices: int
    coils: int
    rows: int
    columns: int
    target_shape: tuple[int, int]
    provenance: Provenance
    padding: tuple[int, int]

    @property
    def size_bytes(self) -> int:
        """Memory the volume takes once read: complex64 k-space and float32 target."""
        pixels = self.target_shape[0] * self.target_shape[1]
        return self.slices * (8 * self.coils * self.rows * self.columns + 4 * pixels)


def write_volume(path: Path, volume: Volume) -> None:
    """Write one volume; a crash leaves the old file or the new one, never a part.

    Equal volumes give equal bytes.

    Raises
    ------
    DataError
        If the volume is one that :func:`read_volume` would refuse.
    OSError
        If the disk is full or the directory is not writable.
    """
    where = f"volume '{volume.name}'"
    kspace = np.ascontiguousarray(volume.kspace, dtype=np.complex64)
    target = np.ascontiguousarray(volume.target, dtype=np.float32)
    if kspace.ndim != 4 or 0 in kspace.shape:
        raise DataError(
            f"The k-space of {where} has the shape {kspace.shape}.",
            "It must be (slices, coils, rows, columns), none of them zero.",
        )
    slices, coils, rows, columns = kspace.shape
    check_kspace(kspace, where=where)
    check_target(target, kspace, where=where, name="target")
    geometry = EncodingGeometry(rows, columns, target.shape[1], target.shape[2], volume.padding)
    _check_padding(geometry, where)
    header = compose_header(geometry, slices=slices, coils=coils, notes=volume.notes)
    attributes = {
        "max": float(target.max()),
        "norm": float(np.linalg.norm(target.astype(np.float64))),
        "patient_id": volume.patient,
        "acquisition": volume.acquisition,
        f"{PREFIX}organ": volume.organ,
        f"{PREFIX}provenance": volume.provenance,
        **{PREFIX + key: value for key, value in volume.notes.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with h5py.File(temporary, "w") as file:
            file.create_dataset("kspace", data=kspace)
            file.create_dataset("reconstruction_rss", data=target)
            # Of fixed length: a damaged reference to text of variable length can crash the HDF5 library.
            file.create_dataset("ismrmrd_header", data=np.bytes_(header))
            if volume.truth is not None:
                file.create_dataset("truth", data=np.asarray(volume.truth, dtype=np.float32))
            file.attrs.update(attributes)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def read_volume(path: Path) -> Volume:
    """Read one volume, as this package or fastMRI's authors wrote it.

    A missing target is computed: the root sum of squares, cropped around its centre to the header's
    reconstructed matrix. Single-coil k-space is one coil, with ``reconstruction_esc`` as its target.
    A missing patient is the file's name without ending; a missing organ follows from the acquisition.

    Raises
    ------
    DataError
        If the file is missing, is no HDF5 file, is empty or cut short; if k-space or header are missing
        or of the wrong kind; if k-space holds NaN, an empty slice or coil, or is undersampled; if header
        or target do not belong to the k-space. The message names the file, the reason and the remedy.
    """
    with _opened(path) as file:
        header = _header_of(file, path)
        stored = file["kspace"]
        kspace = np.asarray(stored[()], dtype=np.complex64).reshape(
            header.slices, header.coils, header.rows, header.columns
        )
        name = _target_name(file)
        target = None if name is None else np.asarray(file[name][()], dtype=np.float32)
        truth = np.asarray(file["truth"][()], dtype=np.float32) if "truth" in file else None
        notes = {
            key.removeprefix(PREFIX): _plain(value)
            for key, value in file.attrs.items()
            if key.startswith(PREFIX) and key not in (f"{PREFIX}organ", f"{PREFIX}provenance")
        }
    first, last = check_kspace(kspace, where=str(path))
    if target is None or name is None:
        target = centre_crop(reconstruct(kspace), header.target_shape).copy()
    else:
        check_target(target, kspace, where=str(path), name=name)
    if truth is not None and truth.shape != target.shape:
        raise DataError(
            f"The truth in {path} has the shape {truth.shape}, and the target {target.shape}.",
            "Remove the dataset 'truth' from the file.",
        )
    return Volume(
        name=header.name,
        patient=header.patient,
        organ=header.organ,
        acquisition=header.acquisition,
        kspace=kspace,
        target=target,
        # Some headers declare columns acquired that are zero-filled; a mask must not count them.
        padding=(max(first, header.padding[0]), min(last, header.padding[1])),
        provenance=header.provenance,
        truth=truth,
        notes=notes,
    )


def read_header(path: Path) -> VolumeHeader:
    """Read what a file says of its volume; the k-space itself is not loaded or checked.

    Raises
    ------
    DataError
        If the file cannot be opened, or k-space or header are missing or contradict each other.
    """
    with _opened(path) as file:
        return _header_of(file, path)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Check the path.")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty.", "Copy or export it again.")
        if not h5py.is_hdf5(path):
            path.open("rb").close()  # An unreadable file is no HDF5 file either: say which it is.
            raise DataError(f"{path} is not an HDF5 file.", f"Remove or convert it. {_LAYOUT}")
        # Files are replaced as a whole and never changed; locks only fail on network drives.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except _HDF5_ERRORS as error:
        reason = "is cut short" if "truncated" in str(error) else f"cannot be read: {error}"
        remedy = "Check its permissions." if isinstance(error, PermissionError) else "Copy it again."
        raise DataError(f"{path} {reason.rstrip('.')}.", remedy) from None


def _header_of(file: h5py.File, path: Path) -> VolumeHeader:
    kspace = file.get("kspace")
    if not isinstance(kspace, h5py.Dataset):
        held = ", ".join(sorted(file)) or "nothing"
        raise DataError(f"{path} has no dataset 'kspace'; it holds {held}.", _LAYOUT)
    if kspace.ndim not in (3, 4) or 0 in kspace.shape:
        raise DataError(
            f"The k-space in {path} has the shape {kspace.shape}.",
            "It must be (slices, coils, rows, columns), or (slices, rows, columns) of a single coil.",
        )
    for dataset in file.values():
        # A damaged shape would have memory reserved for numbers that are not there.
        if isinstance(dataset, h5py.Dataset) and dataset.nbytes > _MAX_COMPRESSION * path.stat().st_size:
            raise DataError(f"{path} is damaged: it is too small for its {dataset.name}.", "Copy it again.")
    if kspace.dtype not in (np.dtype(np.complex64), np.dtype(np.complex128)):
        raise DataError(
            f"The k-space in {path} is stored as {kspace.dtype}.", "Store it as complex64. " + _LAYOUT
        )
    slices, coils, rows, columns = kspace.shape if kspace.ndim == 4 else (len(kspace), 1, *kspace.shape[1:])
    geometry = parse_header(_header_document(file, path), where=str(path))
    if (geometry.rows, geometry.columns) != (rows, columns):
        raise DataError(
            f"The ISMRMRD header of {path} says the k-space has {geometry.rows} rows and "
            f"{geometry.columns} columns, but it has {rows} and {columns}.",
            "Correct encodedSpace/matrixSize: x is the rows (readout), y the columns (phase encodes).",
        )
    _check_padding(geometry, str(path))
    name = _target_name(file)
    if name and file[name].ndim != 3:
        raise DataError(
            f"The {name} in {path} has the shape {file[name].shape}.",
            f"It must be (slices, rows, columns). Remove {name} from the file: it is then computed.",
        )
    shape = (
        file[name].shape[-2:]
        if name
        else (min(geometry.image_rows, rows), min(geometry.image_columns, columns))
    )
    acquisition = _text(file.attrs.get("acquisition", ""))
    return VolumeHeader(
        name=path.stem,
        patient=_text(file.attrs.get("patient_id", "")) or path.stem,
        organ=_text(file.attrs.get(f"{PREFIX}organ", _organ_of(acquisition))),
        acquisition=acquisition,
        slices=slices,
        coils=coils,
        rows=rows,
        columns=columns,
        target_shape=tuple(shape),
        provenance=_provenance(file, path),
        padding=geometry.padding,
    )


def _header_document(file: h5py.File, path: Path) -> bytes:
    stored = file.get("ismrmrd_header")
    if not isinstance(stored, h5py.Dataset):
        raise DataError(f"{path} has no dataset 'ismrmrd_header'.", _LAYOUT)
    value = stored[()]
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if not isinstance(value, bytes):
        raise DataError(f"The ismrmrd_header in {path} is stored as {stored.dtype}, not as text.", _LAYOUT)
    return bytes(value)


def _check_padding(geometry: EncodingGeometry, where: str) -> None:
    first, last = geometry.padding
    if min(geometry.image_rows, geometry.image_columns) < 1:
        raise DataError(
            f"The ISMRMRD header of {where} gives the image {geometry.image_rows} rows and "
            f"{geometry.image_columns} columns.",
            "Correct reconSpace/matrixSize.",
        )
    if not 0 <= first < last <= geometry.columns:
        raise DataError(
            f"The header of {where} says that the phase encodes {first} to {last - 1} were acquired, but the "
            f"k-space has {geometry.columns}.",
            "Correct encodingLimits/kspace_encoding_step_1: center = columns // 2 and maximum = columns - 1 "
            "if all were acquired.",
        )


def _target_name(file: h5py.File) -> str | None:
    # fastMRI's single-coil files also hold the multi-coil RSS, which is no image of their k-space.
    names = ("reconstruction_esc",) if file["kspace"].ndim == 3 else ("reconstruction_rss",)
    return next((name for name in names if isinstance(file.get(name), h5py.Dataset)), None)


def _provenance(file: h5py.File, path: Path) -> Provenance:
    value = _text(file.attrs.get(f"{PREFIX}provenance", "acquired"))
    if value not in get_args(Provenance):
        raise DataError(
            f"{path} has the provenance '{value}'.", f"It must be one of {', '.join(get_args(Provenance))}."
        )
    return cast(Provenance, value)


def _organ_of(acquisition: str) -> str:
    if acquisition.startswith(_KNEE):
        return "knee"
    return "brain" if acquisition.startswith(_BRAIN) else ""


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> str | float | int:
    plain = value.item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, str | float | int) else _text(plain)
