"""Hallucination maps: errors that the measurements contradict, and errors that they could not have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mri.measurement_space import TRUNCATION, MeasurementSpace
from reconsent.errors import DataError

Image = npt.NDArray[np.float32]

LIMITS = (
    "Hallucination maps divide an error into what the measurements contradict and what they cannot see; "
    "whether a radiologist would take it for anatomy they do not say. Magnitude images are compared under "
    "the reference's own coil phases, and where the line between measured and not measured lies is a choice."
)


@dataclass(frozen=True, slots=True)
class Hallucination:
    """Energies of the two kinds of error over the energy of the reference, no unit.

    Attributes
    ----------
    measured
        ‖A⁺A (f̂ − f)‖² / ‖f‖²: the reconstruction contradicts what was measured.
    null
        ‖(I − A⁺A)(f̂ − f)‖² / ‖f‖²: filled in from what was learned, and wrong.
    """

    measured: float
    null: float


def hallucination_maps(
    output: npt.NDArray[Any], reference: npt.NDArray[Any], space: MeasurementSpace
) -> tuple[Image, Image]:
    """Maps of the two kinds of error of one slice.

    With g = A f, the measurement-space map A⁺A f̂ − A⁺g and the null-space map P f̂ − P f, P = I − A⁺A, are
    the two parts of the error f̂ − f (Bhadra et al. 2021, section III).

    Parameters
    ----------
    output, reference
        Reconstruction f̂ and fully sampled reference f, magnitude, ``(crop rows, crop columns)``; outside the
        crop the error counts as none.
    space
        Of the acquisition, at its full size.

    Returns
    -------
    tuple
        Measurement-space and null-space map, float32 magnitudes at the acquisition's full size.

    Raises
    ------
    DataError
        If the shapes differ or do not fit into the acquisition.
    """
    if output.shape != reference.shape:
        raise DataError(f"The reconstruction is {output.shape}, the reference {reference.shape}.")
    error = np.asarray(output, dtype=np.float32) - np.asarray(reference, dtype=np.float32)
    measured, null = space.split(_embedded(error, space.shape))
    return np.abs(measured).astype(np.float32), np.abs(null).astype(np.float32)


def volume_hallucination(
    output: npt.NDArray[Any],
    reference: npt.NDArray[Any],
    spaces: Sequence[MeasurementSpace | None],
) -> Hallucination:
    """The two energies of a volume.

    Parameters
    ----------
    output, reference
        ``(slices, crop rows, crop columns)``, in the same units.
    spaces
        Of each slice; ``None`` leaves a slice out.

    Raises
    ------
    DataError
        If the shapes differ, or nothing with signal is left.
    """
    measured = null = energy = 0.0
    for image, truth, space in zip(output, reference, spaces, strict=True):
        if space is None:
            continue
        first, second = hallucination_maps(image, truth, space)
        measured += float(np.sum(first.astype(np.float64) ** 2))
        null += float(np.sum(second.astype(np.float64) ** 2))
        energy += float(np.sum(np.asarray(truth, dtype=np.float64) ** 2))
    if energy == 0.0:
        raise DataError(
            "The reference has no signal: hallucinations have no scale.", "Leave this volume out."
        )
    return Hallucination(measured / energy, null / energy)


def slice_spaces(
    kspace: npt.NDArray[np.complex64],
    lines: npt.ArrayLike,
    usable: Sequence[int],
    *,
    truncation: float = TRUNCATION,
) -> list[MeasurementSpace | None]:
    """The measurement space of each slice of a volume; ``None`` for slices that are not reconstructed.

    Parameters
    ----------
    kspace
        complex64, ``(slices, coils, rows, columns)``, fully sampled.
    lines
        bool, ``(columns,)``.
    usable
        Slices to take.
    truncation
        See :class:`MeasurementSpace`.
    """
    chosen = set(usable)
    return [
        MeasurementSpace.of_kspace(slice_, lines, truncation=truncation) if place in chosen else None
        for place, slice_ in enumerate(kspace)
    ]


def _embedded(image: Image, shape: tuple[int, int]) -> Image:
    """``image`` in the centre of zeros, as fastMRI's centre crop takes it out."""
    if image.shape[0] > shape[0] or image.shape[1] > shape[1]:
        raise DataError(f"An image of {image.shape} does not fit into an acquisition of {shape}.")
    whole = np.zeros(shape, dtype=np.float32)
    row, column = ((full - part) // 2 for full, part in zip(shape, image.shape, strict=True))
    whole[row : row + image.shape[0], column : column + image.shape[1]] = image
    return whole
