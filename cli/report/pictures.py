"""Example slices for the report: the truth and what each model made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reconsent.errors import DataError

Image = npt.NDArray[np.floating[Any]]

ZERO_FILLED = "zero_filled"


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRow:
    """One slice of a site, reconstructed by each model.

    Attributes
    ----------
    site, organ, withdrawn
        Whose slice it is.
    volume, slice
        Which slice: name of the volume, index from 0.
    truth
        ``(rows, columns)``: fully sampled reference, any unit.
    images
        By ``zero_filled``, ``original``, ``unlearned``, ``oracle``: ``(rows, columns)`` in the unit of
        the truth; those that are missing are left out of the report.

    Raises
    ------
    DataError
        If an image has another shape than the truth, is not finite, or the truth is empty.
    """

    site: str
    organ: str
    withdrawn: bool
    volume: str
    slice: int
    truth: Image
    images: Mapping[str, Image]

    def __post_init__(self) -> None:
        where = f"slice {self.slice} of volume '{self.volume}' of site '{self.site}'"
        if self.truth.ndim != 2 or not np.isfinite(self.truth).all() or not self.truth.max(initial=0) > 0:
            raise DataError(
                f"The truth of {where} is not a finite image with signal.", "Choose another slice."
            )
        for name, image in self.images.items():
            if image.shape != self.truth.shape:
                raise DataError(
                    f"The {name} image of {where} is {image.shape}, its truth {self.truth.shape}."
                )
            if not np.isfinite(image).all():
                raise DataError(f"The {name} image of {where} holds NaN or infinity.", "The model diverged?")

    def error(self, name: str) -> Image:
        """Absolute error of an image as a share of the truth's maximum, ``(rows, columns)``."""
        return np.asarray(np.abs(self.images[name] - self.truth) / self.truth.max())

    def psnr(self, name: str) -> float:
        """PSNR of an image in dB, data range = maximum of this slice's truth; ``inf`` if it is equal."""
        mean = float(np.mean(self.error(name).astype(np.float64) ** 2))
        return float(-10 * np.log10(mean)) if mean > 0 else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The rows of the report's reconstructions."""

    rows: tuple[PictureRow, ...]

    def error_scale(self) -> float:
        """Upper end of the one scale that all error maps share, as a share of the truth's maximum.

        The 99.5th percentile of the models' errors: the zero-filled image is left out, whose errors are
        so large that the models' would all look black, and so are single outlying pixels.
        """
        errors = [row.error(name).ravel() for row in self.rows for name in row.images if name != ZERO_FILLED]
        if not errors:
            errors = [row.error(name).ravel() for row in self.rows for name in row.images]
        scale = float(np.percentile(np.concatenate(errors), 99.5)) if errors else 0.0
        return scale if scale > 0 else 1.0
