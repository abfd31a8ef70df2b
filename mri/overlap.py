"""Whether two sets of volumes, of different directories, hold data of the same patients."""

from __future__ import annotations

import filecmp
import hashlib
from collections.abc import Iterable
from pathlib import Path

from mri.directory import list_volumes
from mri.fastmri_file import read_header

_PROBE_BYTES = 64 * 1024


class KnownVolumes:
    """Volumes of one directory, to be compared with those of others.

    Patients are the same if their pseudonyms are, and these are more than file names: what phantoms are
    called, or volumes without a pseudonym, says nothing of other directories.
    Volumes are the same if their bytes are.

    Parameters
    ----------
    directory
        Directory of fastMRI HDF5 files.
    patients
        Those of its patients that count.

    Raises
    ------
    DataError
        If the directory or a file's header cannot be read.
    """

    def __init__(self, directory: Path, patients: Iterable[str]) -> None:
        chosen = frozenset(patients)
        self._files: dict[tuple[int, bytes], list[Path]] = {}
        pseudonyms = set()
        for path in list_volumes(directory):
            header = read_header(path)
            if header.patient not in chosen:
                continue
            self._files.setdefault(_probe(path), []).append(path)
            if header.provenance != "phantom" and header.patient != path.stem:
                pseudonyms.add(header.patient)
        self.pseudonyms = frozenset(pseudonyms)

    def same_files(self, other: KnownVolumes) -> list[tuple[Path, Path]]:
        """Pairs of files, one of each, that hold the same bytes."""
        return [
            (path, theirs)
            for probe, paths in self._files.items()
            for path in paths
            for theirs in other._files.get(probe, ())
            if filecmp.cmp(path, theirs, shallow=False)
        ]


def _probe(path: Path) -> tuple[int, bytes]:
    """Size and a digest of the middle: files that differ here need not be read whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, (size - _PROBE_BYTES) // 2))
        return size, hashlib.sha256(file.read(_PROBE_BYTES)).digest()
