"""What an acquisition sees of an image, and what it cannot see: measurement space and null space."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mri.fourier import ifft2c, root_sum_of_squares
from reconsent.errors import DataError

TRUNCATION = 0.1
TINY = 1e-30

Complex = npt.NDArray[np.complex64]


class MeasurementSpace:
    """The orthogonal projection onto the part of an image that undersampled multi-coil k-space determines.

    With A = M F S (coil sensitivities S, Fourier transform F, mask of phase encodes M), singular vectors of A
    whose singular value exceeds a share of the largest span the measurement space; the others, which noise
    would drown, are counted to the null space (the truncated pseudo-inverse of Bhadra et al. 2021, section
    II-B). Readouts are fully sampled, so each image row is a problem of its own and is solved exactly.

    Parameters
    ----------
    sensitivities
        complex, ``(coils, rows, columns)``.
    lines
        bool, ``(columns,)``: acquired phase encodes.
    truncation
        Share of the largest singular value, 0 to 1, below which a component counts as not measured.

    Raises
    ------
    DataError
        If the shapes do not fit each other.

    References
    ----------
    Bhadra, Kelkar, Brooks, Anastasio: *On hallucinations in tomographic image reconstruction*, IEEE TMI
    40(11):3249 (2021).
    """

    def __init__(
        self, sensitivities: npt.NDArray[Any], lines: npt.ArrayLike, *, truncation: float = TRUNCATION
    ) -> None:
        mask = np.asarray(lines, dtype=np.bool_)
        if sensitivities.ndim != 3 or mask.shape != (sensitivities.shape[2],):
            raise DataError(
                f"Sensitivities have the shape {sensitivities.shape} and the mask {mask.shape}.",
                "They must be (coils, rows, columns) and (columns,).",
            )
        maps = np.asarray(sensitivities, dtype=np.complex64)
        # AᴴA of one row: T[i, j] Σ S*(i) S(j), where T = Fᴴ M F is the point spread of the mask.
        spread = _point_spread(mask)
        coupling = np.einsum("cri,crj->rij", maps.conj(), maps)
        values, vectors = np.linalg.eigh(coupling * spread)
        # Eigenvalues are squared singular values.
        measured = values > truncation**2 * max(float(values.max()), TINY)
        self._vectors: Complex = np.where(measured[:, None, :], vectors, 0).astype(np.complex64)
        self.dimensions = int(measured.sum())
        self.size = int(measured.size)

    @classmethod
    def of_kspace(
        cls, kspace: npt.NDArray[np.complex64], lines: npt.ArrayLike, *, truncation: float = TRUNCATION
    ) -> Self:
        """The space of an acquisition whose fully sampled k-space is known.

        Sensitivities are the coil images over their root sum of squares, phase of the object included: then
        the root-sum-of-squares image, real and positive, has exactly this k-space, and any magnitude image
        can be compared with it.

        Parameters
        ----------
        kspace
            complex64, ``(coils, rows, columns)``, fully sampled.
        lines, truncation
            As for the class.
        """
        images = ifft2c(kspace)
        combined = root_sum_of_squares(images)
        maps = np.divide(images, combined, out=np.zeros_like(images), where=combined > 0)
        return cls(maps, lines, truncation=truncation)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        return self._vectors.shape[0], self._vectors.shape[1]

    def split(self, image: npt.NDArray[Any]) -> tuple[Complex, Complex]:
        """Measured part A⁺A f and null part (I − A⁺A) f.

        Parameters
        ----------
        image
            Real or complex, ``(rows, columns)``.

        Returns
        -------
        tuple
            Two complex64 ``(rows, columns)`` that add up to the image and are orthogonal to each other.

        Raises
        ------
        DataError
            If the image has another shape than the sensitivities.
        """
        if image.shape != self.shape:
            raise DataError(f"An image of {image.shape} was given for an acquisition of {self.shape}.")
        whole = np.asarray(image, dtype=np.complex64)
        weights = np.einsum("rik,ri->rk", self._vectors.conj(), whole)
        measured: Complex = np.einsum("rik,rk->ri", self._vectors, weights)
        return measured, whole - measured


def _point_spread(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.complex64]:
    """Fᴴ M F for the centred orthonormal transform of one row, ``(columns, columns)``."""
    columns = mask.size
    places = np.arange(columns) - columns // 2
    transform = np.exp(-2j * np.pi * np.outer(places, places) / columns) / np.sqrt(columns)
    spread: npt.NDArray[np.complex64] = (transform.conj().T[:, mask] @ transform[mask]).astype(np.complex64)
    return spread
