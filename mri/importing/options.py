"""What an import is asked to do, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mri.directory import Problem
from reconsent.config import Organ
from reconsent.errors import ConfigError

Kind = Literal["auto", "dicom", "nifti", "images", "kspace", "ismrmrd", "fastmri"]
"""Formats of a source; ``images`` and ``kspace`` are NumPy files of real or complex numbers."""

Axis = Literal["sagittal", "coronal", "axial"]
"""Plane of the slices that are cut from a three-dimensional image."""

ACQUISITIONS = ("AXT1", "AXT1PRE", "AXT1POST", "AXT2", "AXFLAIR", "CORPD_FBK", "CORPDFS_FBK")
"""fastMRI's names; other readers of its files refuse any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How foreign data become fastMRI volumes.

    Attributes
    ----------
    organ
        Of every volume.
    kind
        Format of the source; ``auto`` finds it out.
    crop
        Rows and columns, in pixels of the source, to which images are first cropped or zero-padded
        around their centre. For images only.
    matrix
        Rows and columns of the k-space that is kept around its centre, which sets the resolution and
        leaves the field of view; ``None`` keeps the source's. Images are padded to its proportions.
    coils
        How many; ``None`` is 4 simulated ones, or all those of ``coil_maps``. For images only.
    coil_maps
        ``.npy`` or ``.npz`` with complex sensitivities ``(coils, rows, columns)`` to use in place of
        simulated ones; they are resampled to the image. For images only.
    noise
        Standard deviation of the noise added to images (of its real and of its imaginary part, averaged
        over the coils), over the image's maximum. For images only.
    seed
        Of phase, coils and noise.
    axis
        Plane of the slices. For NIfTI only.
    slices
        First and one-past-last slice to take of each examination; ``None`` takes all.
    slice_step
        Take every n-th slice.
    slabs
        Cut each examination into so many contiguous slabs and call each a patient of its own. For one
        person's examination alone, and never evidence of generalisation to another person.
    acquisition
        fastMRI's name of the sequence; empty chooses by the organ.
    patients
        Take only these patients, by the source's own identifiers; empty takes all.
    keep_identifiers
        Keep the source's patient identifiers and file names instead of pseudonyms.
    key_file
        Secret key of the pseudonyms; made if missing. ``None`` is a file in the user's configuration
        directory. The same key gives a patient the same pseudonym again.
    drop_empty
        Remove slices and coils of k-space that are all zeros instead of refusing them.
    overwrite
        Replace volumes of the destination that have the same name and other content.
    """

    organ: Organ
    kind: Kind = "auto"
    crop: tuple[int, int] | None = None
    matrix: tuple[int, int] | None = None
    coils: int | None = None
    coil_maps: Path | None = None
    noise: float = 0.01
    seed: int = 0
    axis: Axis = "axial"
    slices: tuple[int, int] | None = None
    slice_step: int = 1
    slabs: int = 1
    acquisition: str = ""
    patients: tuple[str, ...] = ()
    keep_identifiers: bool = False
    key_file: Path | None = None
    drop_empty: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.organ not in get_args(Organ):
            raise ConfigError(
                f"There is no organ '{self.organ}'.", f"Organs are: {', '.join(get_args(Organ))}."
            )
        if self.acquisition and self.acquisition not in ACQUISITIONS:
            raise ConfigError(
                f"'{self.acquisition}' is not one of fastMRI's acquisitions.",
                f"Choose the nearest of {', '.join(ACQUISITIONS)}.",
            )
        for name, shape in (("crop", self.crop), ("matrix", self.matrix)):
            if shape is not None and min(shape) < 16:
                raise ConfigError(
                    f"The {name} {shape[0]}x{shape[1]} is too small.", "Rows and columns must be 16 at least."
                )
        if self.coils is not None and not 1 <= self.coils <= 64:
            raise ConfigError(f"{self.coils} coils cannot be simulated.", "Choose 1 to 64.")
        if self.coil_maps is None and (self.coils or 0) > 16:
            raise ConfigError(
                f"{self.coils} coils cannot be simulated.", "Choose 1 to 16, or give coil maps of your own."
            )
        if not self.noise >= 0:
            raise ConfigError(f"The noise {self.noise} is negative.", "Give 0 or more.")
        if self.slices is not None and not 0 <= self.slices[0] < self.slices[1]:
            raise ConfigError(
                f"The slices {self.slices[0]}:{self.slices[1]} are none.",
                "Give the first and one past the last, counted from 0, such as 20:60.",
            )
        if self.slice_step < 1 or self.slabs < 1:
            raise ConfigError("Slice step and slabs must be 1 at least.", "Leave them out for 1.")

    @property
    def acquisition_name(self) -> str:
        """The acquisition, or the one that an organ without a name of its own gets."""
        return self.acquisition or ("CORPD_FBK" if self.organ == "knee" else "AXT1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did.

    Attributes
    ----------
    destination
        Directory of the volumes.
    kind
        Format that was found.
    volumes
        Files written, or found there with the same content already.
    patients
        Their pseudonyms.
    slices
        Of all volumes.
    provenance
        ``acquired`` for k-space, ``retrospective`` for images.
    dropped
        Names of the source's fields that identify a person, a date or a place and were not taken over.
    key_file
        Key of the pseudonyms; ``None`` if identifiers were kept.
    problems
        Examinations that could not be imported.
    remarks
        What was left out or assumed.
    """

    destination: Path
    kind: str
    volumes: tuple[Path, ...]
    patients: tuple[str, ...]
    slices: int
    provenance: str
    dropped: tuple[str, ...]
    key_file: Path | None
    problems: tuple[Problem, ...]
    remarks: tuple[str, ...]
