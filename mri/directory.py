"""A site's data directory: which volumes it holds, and whether they can be trained on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mri.fastmri_file import VolumeHeader, read_header, read_volume
from reconsent.errors import DataError

_Key = TypeVar("_Key", str, int, tuple[int, int])

MIN_PATIENTS = 2
"""One to train on, one to test on."""

_FILL = "Add volumes with `reconsent data import`, or make phantoms with `reconsent data synth`."


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file cannot be used.

    Attributes
    ----------
    name
        The file, or the directory itself.
    reason, remedy
        What is wrong, and what to do.
    """

    name: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class DirectoryReport:
    """What :func:`check_directory` found.

    Attributes
    ----------
    directory
        What was checked.
    volumes
        Headers of the usable volumes, by name.
    problems
        Every file that cannot be used, and what is wrong with the directory as a whole.
    ignored
        Other entries of the directory, which no reader looks at.
    """

    directory: Path
    volumes: tuple[VolumeHeader, ...]
    problems: tuple[Problem, ...]
    ignored: tuple[str, ...]

    @property
    def trainable(self) -> bool:
        """Whether a site can be trained on this directory as it is."""
        return not self.problems

    @property
    def patients(self) -> dict[str, int]:
        """Volumes of each patient."""
        return _counted(volume.patient for volume in self.volumes)

    @property
    def slices(self) -> int:
        """Slices of all volumes."""
        return sum(volume.slices for volume in self.volumes)

    @property
    def size_bytes(self) -> int:
        """Memory of all volumes once read."""
        return sum(volume.size_bytes for volume in self.volumes)

    @property
    def coils(self) -> dict[int, int]:
        """Volumes with each number of coils."""
        return _counted(volume.coils for volume in self.volumes)

    @property
    def matrices(self) -> dict[tuple[int, int], int]:
        """Volumes with each number of k-space rows and columns."""
        return _counted((volume.rows, volume.columns) for volume in self.volumes)

    @property
    def acquisitions(self) -> dict[str, int]:
        """Volumes of each acquisition."""
        return _counted(volume.acquisition for volume in self.volumes)

    @property
    def organs(self) -> dict[str, int]:
        """Volumes of each organ; an empty name where it is unknown."""
        return _counted(volume.organ for volume in self.volumes)

    @property
    def provenances(self) -> dict[str, int]:
        """Volumes that were acquired, computed back from images, or simulated."""
        return _counted(str(volume.provenance) for volume in self.volumes)


def list_volumes(directory: Path) -> list[Path]:
    """The volumes of a directory, sorted by name.

    Files that begin with a dot (``.DS_Store``, ``._volume.h5``, half-written ones) and files with another
    ending than ``.h5`` are no volumes; subdirectories are not entered.

    Raises
    ------
    DataError
        If there is no such directory, or it cannot be read.
    """
    return [path for path in _entries(directory) if _is_volume(path)]


def check_directory(
    directory: Path, *, progress: Callable[[int, int], None] | None = None
) -> DirectoryReport:
    """Read every volume completely and collect everything that is wrong.

    Beside what :func:`~mri.fastmri_file.read_volume` refuses, it finds the same k-space under two
    patients, which would leak test data into training, and a directory with fewer than two patients.

    Parameters
    ----------
    directory
        Directory of fastMRI HDF5 files.
    progress
        Called with the number of files read and the number of all files.

    Raises
    ------
    DataError
        If there is no such directory, or it cannot be read. What is wrong inside is reported, not raised.
    """
    entries = _entries(directory)
    paths = [path for path in entries if _is_volume(path)]
    volumes: list[VolumeHeader] = []
    problems: list[Problem] = []
    first_with: dict[str, VolumeHeader] = {}
    for count, path in enumerate(paths):
        if progress is not None:
            progress(count, len(paths))
        try:
            header = read_header(path)
            digest = hashlib.sha256(read_volume(path).kspace.data).hexdigest()
        except DataError as error:
            problems.append(Problem(path.name, error.problem, error.remedy))
            continue
        volumes.append(header)
        twin = first_with.setdefault(digest, header)
        if twin.patient != header.patient:
            problems.append(
                Problem(
                    path.name,
                    f"It holds the same k-space as {twin.name}.h5, but says that it is of another patient.",
                    "Remove one of them, or give both the same patient_id.",
                )
            )
    if progress is not None:
        progress(len(paths), len(paths))
    patients = {volume.patient for volume in volumes}
    if not paths:
        problems.append(Problem(directory.name, f"There is no .h5 file in {directory}.", _FILL))
    elif len(patients) < MIN_PATIENTS:
        problems.append(
            Problem(
                directory.name,
                f"{directory} has usable volumes of {len(patients) or 'no'} "
                f"patient{'s' if not patients else ''}; training and testing need {MIN_PATIENTS} at least.",
                _FILL,
            )
        )
    ignored = tuple(path.name for path in entries if not _is_volume(path) and not path.name.startswith("."))
    return DirectoryReport(directory, tuple(volumes), tuple(problems), ignored)


def _entries(directory: Path) -> list[Path]:
    if not directory.is_dir():
        what = "is a file, and no directory" if directory.exists() else "does not exist"
        raise DataError(f"{directory} {what}.", "Check the path.")
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise DataError(f"{directory} cannot be read: {error}.", "Check its permissions.") from None


def _is_volume(path: Path) -> bool:
    return path.suffix == ".h5" and not path.name.startswith(".") and path.is_file()


def _counted(values: Iterable[_Key]) -> dict[_Key, int]:
    counts = Counter(values)
    return {value: counts[value] for value in sorted(counts)}
