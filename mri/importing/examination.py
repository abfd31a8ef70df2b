"""What every reader of a foreign format hands on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mri.volume import Provenance

Notes = dict[str, str | float | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MagnitudeImages:
    """Slices of one examination, of which only the magnitude is known.

    Attributes
    ----------
    images
        float32, ``(slices, rows, columns)``, not negative.
    notes
        What to keep with the volume; nothing in it identifies a person.
    remarks
        What the reader left out or assumed.
    """

    images: npt.NDArray[np.float32]
    notes: Notes = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiCoilKspace:
    """K-space of one examination.

    Attributes
    ----------
    kspace
        complex64, ``(slices, coils, rows, columns)``, centred.
    image_shape
        Rows and columns to which images are cropped: smaller than k-space where it was oversampled.
    acquisition
        fastMRI's name if the source has it, else empty.
    provenance
        As the source says; raw data are ``acquired``.
    notes, remarks
        As in :class:`MagnitudeImages`.
    """

    kspace: npt.NDArray[np.complex64]
    image_shape: tuple[int, int]
    acquisition: str = ""
    provenance: Provenance = "acquired"
    notes: Notes = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """One examination that a source holds, not loaded yet.

    Attributes
    ----------
    label
        What tells it apart from others of the same patient; it may identify the patient.
    patient
        The source's own identifier.
    load
        Reads it.
    dropped
        Names of the identifying fields it has, which are not taken over.
    number
        What it is called in messages where ``label`` would identify the patient; empty if it does not.
    """

    label: str
    patient: str
    load: Callable[[], MagnitudeImages | MultiCoilKspace]
    dropped: tuple[str, ...] = ()
    number: str = ""
