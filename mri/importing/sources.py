"""Which format a source has, and which examinations are in it."""

from __future__ import annotations

from pathlib import Path

import h5py

from mri.directory import Problem
from mri.importing.arrays import find_arrays, holds_kspace
from mri.importing.dicom import find_dicom
from mri.importing.examination import Examination
from mri.importing.fastmri_source import find_fastmri
from mri.importing.mrd import find_ismrmrd, is_ismrmrd
from mri.importing.nifti import find_nifti
from mri.importing.options import ImportOptions, Kind
from reconsent.errors import DataError

_FORMATS = "DICOM, NIfTI (.nii, .nii.gz), NumPy (.npy, .npz), ISMRMRD (.h5) and fastMRI (.h5)"


def find_examinations(source: Path, options: ImportOptions) -> tuple[Kind, list[Examination], list[Problem]]:
    """Find the examinations of a file, or of a directory and those below it.

    Returns
    -------
    kind, examinations, problems
        The format, what can be loaded, and the files that cannot be.

    Raises
    ------
    DataError
        If there is nothing there, nothing of a known format, or several formats.
    """
    paths = _files(source)
    kinds = {path: _kind_of(path) for path in paths}
    kind: Kind
    if options.kind != "auto":
        kind = options.kind
        chosen = [path for path in paths if kinds[path] == kind] or paths
    else:
        found = sorted({kind for kind in kinds.values() if kind is not None})
        if not found:
            raise DataError(f"{source} holds nothing of a known format.", f"Known are {_FORMATS}.")
        if len(found) > 1:
            raise DataError(f"{source} holds several formats: {', '.join(found)}.", "Choose one with --kind.")
        kind = found[0]
        chosen = [path for path in paths if kinds[path] == kind]
    if kind == "dicom":
        return kind, *find_dicom(chosen, keep_identifiers=options.keep_identifiers)
    examinations: list[Examination] = []
    problems: list[Problem] = []
    for path in chosen:
        try:
            examinations += _find_in(path, kind, options)
        except DataError as error:
            problems.append(Problem(path.name, error.problem, error.remedy))
    return kind, examinations, problems


def _find_in(path: Path, kind: Kind, options: ImportOptions) -> list[Examination]:
    if kind == "nifti":
        return find_nifti(path, options.axis)
    if kind == "ismrmrd":
        return find_ismrmrd(path)
    if kind == "fastmri":
        return find_fastmri(path)
    return find_arrays(path)


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"There is no file or directory {source}.", "Check the path.")
    paths = [
        path
        for path in sorted(source.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(source).parts)
    ]
    if not paths:
        raise DataError(f"The directory {source} is empty.", f"Known formats are {_FORMATS}.")
    return paths


def _kind_of(path: Path) -> Kind | None:
    """By ending where there is one, else by the first bytes; ``None`` if it is nothing known."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    if name.endswith((".npy", ".npz")):
        try:
            return "kspace" if holds_kspace(path) else "images"
        except DataError:
            # It is still a NumPy file; what is wrong with it is said when it is read.
            return "images"
    if name.endswith((".h5", ".mrd", ".hdf5")):
        try:
            with h5py.File(path, "r", locking=False) as file:
                return "ismrmrd" if is_ismrmrd(file) else "fastmri"
        except OSError:
            return "fastmri"
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return None
    return "dicom" if start[128:132] == b"DICM" or name.endswith((".dcm", ".ima")) else None
