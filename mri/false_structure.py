"""Structure in a reconstruction that is not in the object, and the reverse, where the object is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_laplace, maximum_filter

from reconsent.errors import DataError

SIGMA = 1.0
NEIGHBOURHOOD = 5
TOLERANCE = 0.05

LIMITS = (
    "The false-structure score needs the noise-free object, so it exists for phantoms only. It sees edges "
    "and spots of a few pixels, not a wrong contrast of a large region, and allows for shifts of two pixels."
)


@dataclass(frozen=True, slots=True)
class FalseStructure:
    """Energies of edges over the energy of the object's edges, square roots, no unit.

    Attributes
    ----------
    false
        Of edges that are not in the object within two pixels.
    missing
        Of the object's edges that are not in the reconstruction within two pixels.
    """

    false: float
    missing: float


def false_structure(
    output: npt.NDArray[np.floating],
    truth: npt.NDArray[np.floating],
    *,
    tolerance: float = TOLERANCE,
) -> FalseStructure:
    """Score a volume against the object it was made of.

    With e = |LoG| (Laplacian of Gaussian, σ one pixel) and m the maximum over 5 × 5 pixels, false structure
    is the positive part of e(output) − m(e(truth)) − tolerance · max e(truth), missing structure the same
    with output and truth exchanged; each is summed in squares over the volume.

    Parameters
    ----------
    output, truth
        Reconstruction and noise-free object, magnitude, ``(slices, rows, columns)``, in the same units.
    tolerance
        Share of the strongest edge that counts as noise.

    Raises
    ------
    DataError
        If the shapes differ, or the object has no edges.
    """
    if output.shape != truth.shape or output.ndim != 3:
        raise DataError(
            f"The reconstruction has the shape {output.shape}, the object {truth.shape}.",
            "Both must be (slices, rows, columns).",
        )
    found, real = _edges(output), _edges(truth)
    energy = float(np.sum(real**2))
    if energy == 0.0:
        raise DataError("The object has no edges, so there is no scale for false ones.")
    allowance = tolerance * float(real.max())
    return FalseStructure(
        false=_excess(found, real, allowance, energy), missing=_excess(real, found, allowance, energy)
    )


def _edges(volume: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    return np.stack([np.abs(gaussian_laplace(image, SIGMA)) for image in np.asarray(volume, np.float64)])


def _excess(
    edges: npt.NDArray[np.float64], other: npt.NDArray[np.float64], allowance: float, energy: float
) -> float:
    known = maximum_filter(other, size=(1, NEIGHBOURHOOD, NEIGHBOURHOOD))
    excess = np.maximum(edges - known - allowance, 0.0)
    return float(np.sqrt(np.sum(excess**2) / energy))
