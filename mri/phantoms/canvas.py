"""The plane an organ is painted on: supersampled labels and fine modulations of the signal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mri.phantoms.fields import Array, RandomField
from mri.phantoms.tissues import Tissue

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Grid:
    """Positions of the supersampled points of one slice.

    Pixels are square, and the shorter side of the field of view spans −1 to 1. Rows point to the
    patient's back (or feet, in a coronal slice), columns to the patient's left.

    Attributes
    ----------
    y, x
        Coordinates of rows and columns, float32.
    pixel
        Side of one image pixel, in the same units.
    supersampling
        Points per pixel along each axis.
    """

    y: Array
    x: Array
    pixel: float
    supersampling: int

    @classmethod
    def for_matrix(cls, rows: int, columns: int) -> Grid:
        """The grid of an image with ``rows`` × ``columns`` pixels."""
        shorter = min(rows, columns)
        # Small images have few points anyway, and gain most from a better partial volume.
        factor = 3 if shorter <= 128 else 2
        y = (np.arange(rows * factor) + 0.5 - rows * factor / 2) * (2.0 / (shorter * factor))
        x = (np.arange(columns * factor) + 0.5 - columns * factor / 2) * (2.0 / (shorter * factor))
        return cls(y.astype(np.float32), x.astype(np.float32), 2.0 / shorter, factor)

    def fine(self, wavelength: float, pixels: float = 2.6) -> float:
        """``wavelength``, but no shorter than an image of this matrix can show."""
        return max(wavelength, pixels * self.pixel)

    def width(self, width: float, pixels: float = 0.5) -> float:
        """``width`` of a thin structure, but no less than leaves a trace in a pixel."""
        return max(width, pixels * self.pixel)

    def downsample(self, values: Array) -> Array:
        """Mean over each pixel's points: the partial-volume effect."""
        factor = self.supersampling
        rows, columns = values.shape[0] // factor, values.shape[1] // factor
        total = np.zeros((rows, columns), dtype=np.float32)
        for i in range(factor):
            for j in range(factor):
                total += values[i::factor, j::factor]
        return total / np.float32(factor * factor)


class Canvas:
    """One slice of one patient, while it is painted from the outside inwards.

    Attributes
    ----------
    grid
        Where the points are.
    z
        Slice position, −1 to 1.
    u, v
        Column and row coordinates after the patient's smooth deformation, ``(rows, columns)``.
    labels
        uint8, the :class:`~mri.phantoms.tissues.Tissue` of every point.
    texture
        float32, factor of the signal at every point.
    """

    def __init__(
        self, grid: Grid, z: float, deformation: tuple[RandomField, RandomField], amount: float
    ) -> None:
        self.grid = grid
        self.z = z
        self.amount = amount
        self.u = grid.x[None, :] + np.float32(amount) * deformation[0].on(grid.y, grid.x, z)
        self.v = grid.y[:, None] + np.float32(amount) * deformation[1].on(grid.y, grid.x, z)
        self.labels = np.zeros(self.u.shape, dtype=np.uint8)
        self._fields: dict[RandomField, Array] = {}
        self.texture = np.ones(self.u.shape, dtype=np.float32)

    def field(self, field: RandomField) -> Array:
        """``field`` at every point of this slice; remembered, so it must not be changed in place."""
        if field not in self._fields:
            self._fields[field] = field.on(self.grid.y, self.grid.x, self.z)
        return self._fields[field]

    def paint(self, where: Mask, tissue: Tissue) -> None:
        """Give the points of ``where`` a new tissue."""
        self.labels[where] = tissue

    def repaint(self, where: Mask, old: Tissue, new: Tissue) -> None:
        """Turn ``old`` tissue into ``new`` in the points of ``where``."""
        self.labels[where & (self.labels == old)] = new

    def modulate(self, tissue: Tissue, factor: Array) -> None:
        """Multiply the signal of all points of one tissue."""
        where = self.labels == tissue
        self.texture[where] *= np.maximum(factor[where], 0.0)

    def has(self, *tissues: Tissue) -> Mask:
        """Points made of any of ``tissues``."""
        table = np.zeros(len(Tissue), dtype=np.bool_)
        table[list(tissues)] = True
        return table[self.labels]

    def tube(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        radii: tuple[float, float],
        tissue: Tissue,
        where: Mask | None = None,
    ) -> None:
        """Paint a straight tube with linearly changing radius; points are (u, v).

        ``where``, ``(rows, columns)``, limits it to an organ.
        """
        thick = max(radii)
        if thick <= 0:
            return
        # Only a box around the tube is touched; the deformation moves points by a few times its amount.
        margin = thick + 4.0 * self.amount
        rows = slice(*np.searchsorted(self.grid.y, _span(start[1], end[1], margin)))
        columns = slice(*np.searchsorted(self.grid.x, _span(start[0], end[0], margin)))
        u, v = self.u[rows, columns], self.v[rows, columns]
        du, dv = end[0] - start[0], end[1] - start[1]
        along = ((u - start[0]) * du + (v - start[1]) * dv) / max(du * du + dv * dv, 1e-12)
        along = np.clip(along, 0.0, 1.0)
        squared = (u - start[0] - along * du) ** 2 + (v - start[1] - along * dv) ** 2
        inside = squared < (radii[0] + (radii[1] - radii[0]) * along) ** 2
        if where is not None:
            inside &= where[rows, columns]
        self.labels[rows, columns][inside] = tissue


def _span(a: float, b: float, margin: float) -> tuple[np.float32, np.float32]:
    return np.float32(min(a, b) - margin), np.float32(max(a, b) + margin)
