"""fastMRI files again: to take out identifiers, empty slices or coils, or resolution."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import h5py
import numpy as np

from mri.fastmri_file import VolumeHeader, read_header
from mri.importing.examination import Examination, MultiCoilKspace
from reconsent.errors import DataError

_TAKEN = frozenset({"max", "norm", "acquisition", "reconsent_organ", "reconsent_provenance"})


def find_fastmri(path: Path) -> list[Examination]:
    """The examination in a fastMRI file; its target is computed anew.

    Raises
    ------
    DataError
        As :func:`~mri.fastmri_file.read_header`.
    """
    header = read_header(path)
    with h5py.File(path, "r", locking=False) as file:
        dropped = tuple(sorted({*file.attrs} - _TAKEN))
    return [
        Examination(
            label=path.name,
            patient=header.patient,
            load=partial(_load, path, header),
            dropped=(*dropped, "file name", "ismrmrd_header"),
        )
    ]


def _load(path: Path, header: VolumeHeader) -> MultiCoilKspace:
    try:
        with h5py.File(path, "r", locking=False) as file:
            kspace = np.asarray(file["kspace"][()], dtype=np.complex64)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.", "Copy it again.") from None
    return MultiCoilKspace(
        kspace=kspace.reshape(header.slices, header.coils, header.rows, header.columns),
        image_shape=header.target_shape,
        acquisition=header.acquisition,
        provenance=header.provenance,
    )
