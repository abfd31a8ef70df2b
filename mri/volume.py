"""One MR examination, as fastMRI stores it: multi-coil Cartesian k-space with its metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Provenance = Literal["acquired", "retrospective", "phantom"]
"""Where k-space comes from: a scanner, a magnitude image it was computed back from, or a simulation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Multi-coil Cartesian k-space of one patient, centred and orthonormal as in fastMRI.

    Attributes
    ----------
    name
        File name without ending; unique within a directory.
    patient
        Pseudonym of the patient; a split never separates two volumes of one patient.
    organ
        ``brain``, ``knee``, ``abdomen``, ``heart``, ``prostate``; empty when unknown.
    acquisition
        fastMRI's name of the sequence (``AXT2``, ``CORPD_FBK``, …).
    kspace
        complex64, ``(slices, coils, rows, columns)``; rows are the readout, columns the phase encodes.
    target
        float32, ``(slices, crop rows, crop columns)``: root-sum-of-squares reconstruction of the fully
        sampled k-space (``reconstruction_rss`` in fastMRI's files).
    padding
        First and one-past-last acquired phase encode; ``(0, columns)`` if all were acquired.
    provenance
        ``acquired``, ``retrospective`` (computed back from a magnitude image) or ``phantom``.
    truth
        float32, like ``target``: the noise-free object where it is known (phantoms), else ``None``.
    notes
        Further attributes to keep with the file (contrast, field strength, source, …).
    """

    name: str
    patient: str
    organ: str
    acquisition: str
    kspace: npt.NDArray[np.complex64]
    target: npt.NDArray[np.float32]
    padding: tuple[int, int]
    provenance: Provenance
    truth: npt.NDArray[np.float32] | None = None
    notes: dict[str, str | float | int] = field(default_factory=dict)

    @property
    def maximum(self) -> float:
        """Largest value of the target: the data range of this volume's PSNR and SSIM."""
        return float(self.target.max())
