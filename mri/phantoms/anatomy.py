"""What every organ's anatomy has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from mri.phantoms.canvas import Canvas, Grid, Mask
from mri.phantoms.fields import Array, RandomField, Streams
from mri.phantoms.shapes import zero_distance
from mri.phantoms.tissues import Tissue


class Anatomy(ABC):
    """One patient's organ: random shapes and textures that hold for all of the patient's slices.

    Parameters
    ----------
    streams
        The patient's random generators.
    grid
        Only its pixel size matters here: structures that would be lost in a pixel are drawn as fine as
        the image can show, so that each organ keeps its typical texture at any matrix.
    """

    #: Roughness of the smooth deformation (standard deviation, half the field of view being 1).
    deformation: ClassVar[float] = 0.02
    #: Half of the imaged range of slice positions.
    span: ClassVar[float] = 0.85

    def __init__(self, streams: Streams, grid: Grid) -> None:
        self.grid = grid
        self.fine = grid.fine
        self.width = grid.width
        self.streams = streams
        self.shape = streams("shape")
        self._warp = (self.field("warp-u", 1.1, evolution=0.7), self.field("warp-v", 1.1, evolution=0.7))

    @abstractmethod
    def draw(self, canvas: Canvas) -> None:
        """Paint the slice at ``canvas.z``."""

    def slice_at(self, z: float) -> Canvas:
        """The painted slice at position ``z``, −1 to 1."""
        canvas = Canvas(self.grid, z, self._warp, self.deformation)
        self.draw(canvas)
        return canvas

    def field(
        self,
        name: str,
        wavelength: float | tuple[float, float],
        *,
        ring: bool = False,
        angle: float = 0.0,
        evolution: float = 1.0,
    ) -> RandomField:
        """A random field of this patient, with its own stream."""
        return RandomField(self.streams(name), wavelength, ring=ring, angle=angle, evolution=evolution)

    def number(self, low: float, high: float) -> float:
        """The next uniform number of the patient's shape."""
        return float(self.shape.uniform(low, high))


def strands(canvas: Canvas, field: RandomField, gate: RandomField, width: float) -> Mask:
    """Thin curved lines: the zero level of ``field`` where ``gate`` is positive, ``width`` to a side."""
    spacing = float(canvas.grid.x[1] - canvas.grid.x[0])
    values = canvas.field(field)
    # The gate makes lines end and thin out, as septa, small vessels and fibres do.
    opening = np.clip(canvas.field(gate), 0.0, 1.0) * np.float32(canvas.grid.width(width, 0.28))
    result: Mask = zero_distance(values, spacing) < opening
    return result


def speckle(canvas: Canvas, field: RandomField, amount: float, *tissues: Tissue) -> Array:
    """Modulate ``tissues`` by 1 + ``amount`` · field; returns the field's values for further use."""
    values = canvas.field(field)
    factor = 1.0 + np.float32(amount) * values
    for tissue in tissues:
        canvas.modulate(tissue, factor)
    return values
