"""Implicit shapes: functions of position whose level set is an organ's outline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mri.phantoms.canvas import Canvas, Mask
from mri.phantoms.fields import Array
from mri.phantoms.tissues import Tissue


def ellipse(
    u: Array, v: Array, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0
) -> Array:
    """Normalised radius: 0 in the centre, 1 on the ellipse, ``angle`` in radians from u towards v.

    A radius of zero or less gives an empty ellipse.
    """
    if min(radii) <= 1e-6:
        return np.full(np.broadcast_shapes(u.shape, v.shape), np.float32(1e6))
    du, dv = u - np.float32(centre[0]), v - np.float32(centre[1])
    if angle:
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        du, dv = c * du + s * dv, c * dv - s * du
    level: Array = np.hypot(du * np.float32(1.0 / radii[0]), dv * np.float32(1.0 / radii[1]))
    return level


def distance(
    u: Array, v: Array, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0
) -> Array:
    """Approximate signed distance to an ellipse, negative inside; exact on the boundary of a circle."""
    return (ellipse(u, v, centre, radii, angle) - np.float32(1.0)) * np.float32(max(min(radii), 1e-6))


def squircle(u: Array, v: Array, centre: tuple[float, float], radii: tuple[float, float]) -> Array:
    """Like :func:`ellipse` with exponent 4 blended in: the cross-section of a trunk."""
    a = ((u - np.float32(centre[0])) / np.float32(radii[0])) ** 2
    b = ((v - np.float32(centre[1])) / np.float32(radii[1])) ** 2
    # ρ² = a + b − ab/2 has corners fuller than the ellipse's and meets it on the axes.
    overlap = np.float32(0.5) * a * b / np.maximum(np.maximum(a, b), np.float32(1.0))
    level: Array = np.sqrt(np.maximum(a + b - overlap, np.float32(0.0)))
    return level


def segment_distance(u: Array, v: Array, start: tuple[float, float], end: tuple[float, float]) -> Array:
    """Distance to a straight segment."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / max(du * du + dv * dv, 1e-12), 0.0, 1.0)
    result: Array = np.hypot(u - start[0] - along * du, v - start[1] - along * dv)
    return result


def zero_distance(field: Array, spacing: float) -> Array:
    """Approximate distance to the zero level of ``field``, |f| / |∇f|, for ribbons of even width."""
    dy, dx = np.gradient(field, np.float32(spacing))
    result: Array = np.abs(field) / np.maximum(np.hypot(dy, dx), np.float32(1e-3))
    return result


def bell(z: float, centre: float, half_width: float) -> float:
    """How much of a round organ a slice cuts: 1 in its centre, 0 at and beyond ``half_width``."""
    return float(np.sqrt(max(0.0, 1.0 - ((z - centre) / half_width) ** 2)))


@dataclass(frozen=True, slots=True)
class VesselTree:
    """A branching tree of straight vessels through a volume.

    Attributes
    ----------
    segments
        ``(n, 8)``: start u, start v, end u, end v, start radius, end radius, slice position at which a
        segment is widest, and half the range of slice positions it is seen in.
    """

    segments: Array

    @classmethod
    def grow(
        cls,
        rng: np.random.Generator,
        root: tuple[float, float],
        direction: float,
        length: float,
        radius: float,
        generations: int,
        spread: float = 0.6,
    ) -> VesselTree:
        """Grow a binary tree from ``root`` towards ``direction`` (radians from u towards v)."""
        segments: list[list[float]] = []
        tips = [(root[0], root[1], direction, length, radius, 0.0)]
        for generation in range(generations):
            grown = []
            for u, v, angle, reach, thick, z in tips:
                end_u, end_v = u + reach * np.cos(angle), v + reach * np.sin(angle)
                thin = thick * rng.uniform(0.72, 0.85)
                visible = 2.5 if generation == 0 else rng.uniform(0.5, 1.1)
                segments.append([u, v, end_u, end_v, thick, thin, z, visible])
                for side in (-1.0, 1.0):
                    turn = side * spread * rng.uniform(0.4, 1.2)
                    shrink = rng.uniform(0.66, 0.88)
                    drift = z + rng.normal(0.0, 0.45)
                    grown.append((end_u, end_v, angle + turn, reach * shrink, thin * 0.82, drift))
            tips = grown
        return cls(np.array(segments, dtype=np.float32))

    def paint(self, canvas: Canvas, tissue: Tissue, where: Mask, thinnest: float = 0.0) -> None:
        """Paint the part of the tree that this slice cuts, inside ``where``."""
        for u0, v0, u1, v1, r0, r1, centre, half in self.segments.tolist():
            share = bell(canvas.z, centre, half)
            if share > 0.0:
                radii = (max(r0 * share, thinnest), max(r1 * share, thinnest))
                canvas.tube((u0, v0), (u1, v1), radii, tissue, where)
