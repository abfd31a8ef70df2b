"""The heart in short-axis slices, from the base (z = −1) to the apex (z = 1)."""

from __future__ import annotations

import numpy as np

from mri.phantoms.anatomy import Anatomy, speckle
from mri.phantoms.canvas import Canvas, Grid, Mask
from mri.phantoms.fields import Array, Streams
from mri.phantoms.shapes import VesselTree, bell, distance, ellipse, squircle
from mri.phantoms.tissues import Tissue

_MM = 1.0 / 125.0  # half the field of view is 125 mm


class Heart(Anatomy):
    """Left ventricle with papillary muscles, right ventricle, lungs with vessels, chest wall, liver.

    A ring around a bright pool, large dark lungs with point-like vessels: few edges, most of them round.
    """

    deformation = 0.018
    span = 0.9

    def __init__(self, streams: Streams, grid: Grid) -> None:
        super().__init__(streams, grid)
        self.centre = (self.number(0.04, 0.20), self.number(-0.08, 0.10))
        self.outer = self.number(0.30, 0.39)
        self.wall = self.number(0.075, 0.125)
        self.oval = self.number(0.92, 1.08)
        self.right = (self.number(0.24, 0.33), self.number(0.31, 0.40))
        self.septum = self.number(2.75, 3.5)  # direction of the right ventricle seen from the left one
        self.chest = (self.number(1.00, 1.20), self.number(0.84, 0.99))
        self.fat = self.number(0.03, 0.13)
        self.epicardial = self.number(0.015, 0.045)
        self.papillary = (self.number(-0.2, 0.3), self.number(1.7, 2.3), self.number(0.045, 0.07))
        self.diaphragm = self.number(0.22, 0.42)
        self.dome = self.number(-0.35, 0.05)
        rng = streams("vessels")
        self.trees = [
            VesselTree.grow(rng, (sign * 0.28 + 0.06, 0.1), angle, 0.22, 0.035, 6, spread=0.7)
            for sign, angle in ((-1.0, np.pi * 1.15), (1.0, -0.25), (-1.0, np.pi * 0.8), (1.0, 0.4))
        ]
        self.liver_tree = VesselTree.grow(rng, (0.0, 0.65), np.pi * 0.95, 0.2, 0.025, 5)
        self.trabeculae = self.field("trabeculae", self.fine(0.10, 3.0), ring=True, evolution=3.0)
        self.flow = self.field("flow", 0.12, evolution=6.0)
        self.fibres = self.field("fibres", self.fine(0.028), evolution=12.0)
        self.outline = self.field("outline", 0.40, evolution=1.2)
        self.haze = self.field("haze", self.fine(0.03), evolution=15.0)
        self.muscle = self.field("muscle", (self.fine(0.03), 0.25), ring=True, angle=0.5, evolution=5.0)

    def draw(self, canvas: Canvas) -> None:
        """Paint the slice at ``canvas.z``."""
        z, u, v = canvas.z, canvas.u, canvas.v
        wobble = canvas.field(self.outline)
        cavity = self._chest(canvas, u, v)
        mediastinum = ellipse(u, v, (-0.02, 0.42), (0.22, 0.45)) + 0.10 * wobble
        canvas.paint((mediastinum < 1) & cavity, Tissue.FAT)
        self._below(canvas, u, v, cavity, wobble)
        self._back(canvas, u, v)
        self._ventricles(canvas, u, v, cavity, wobble, z)
        speckle(canvas, self.haze, 0.25, Tissue.LUNG)
        speckle(canvas, self.fibres, 0.06, Tissue.MYOCARDIUM, Tissue.LIVER)
        speckle(canvas, self.flow, 0.07, Tissue.BLOOD)
        speckle(canvas, self.muscle, 0.14, Tissue.MUSCLE)

    def _chest(self, canvas: Canvas, u: Array, v: Array) -> Mask:
        depth = (1.0 - squircle(u, v, (0.0, 0.02), self.chest)) * np.float32(min(self.chest))
        canvas.paint(depth > 0, Tissue.SKIN)
        canvas.paint(depth > self.width(2.0 * _MM, 0.4), Tissue.FAT)
        canvas.paint(depth > self.fat, Tissue.MUSCLE)
        rim = depth - self.fat
        angle = np.arctan2(v, u)
        rib = np.abs(np.sin(5.0 * angle + 0.4 + 0.5 * canvas.z))
        canvas.paint((rib > 0.78) & (np.abs(rim - 0.055) < 0.032), Tissue.CORTICAL_BONE)
        canvas.paint((rib > 0.85) & (np.abs(rim - 0.055) < 0.018), Tissue.MARROW)
        breast = (np.abs(u) < 0.10) & (v < 0) & (np.abs(rim - 0.05) < 0.035)
        canvas.paint(breast, Tissue.CORTICAL_BONE)
        canvas.paint(breast & (np.abs(rim - 0.05) < 0.022) & (np.abs(u) < 0.085), Tissue.MARROW)
        cavity: Mask = rim > 0.10
        canvas.paint(cavity, Tissue.LUNG)
        for tree in self.trees:
            tree.paint(canvas, Tissue.BLOOD, cavity, 0.30 * self.grid.pixel)
        return cavity

    def _back(self, canvas: Canvas, u: Array, v: Array) -> None:
        behind = self.chest[1] - self.fat - 0.25
        canvas.paint(distance(u, v, (-0.02, behind), (0.17, 0.14)) < 0, Tissue.CORTICAL_BONE)
        canvas.paint(distance(u, v, (-0.02, behind), (0.17, 0.14)) < -self.width(0.014, 0.4), Tissue.MARROW)
        canvas.paint(ellipse(u, v, (-0.02, behind + 0.19), (0.06, 0.05)) < 1, Tissue.CSF)
        canvas.paint(ellipse(u, v, (-0.02, behind + 0.19), (0.035, 0.028)) < 1, Tissue.WHITE_MATTER)
        canvas.paint(
            ellipse(u, v, (0.20, behind - 0.08), (0.088, 0.088)) < 1, Tissue.MYOCARDIUM
        )  # the aorta's wall
        canvas.paint(ellipse(u, v, (0.20, behind - 0.08), (0.076, 0.076)) < 1, Tissue.BLOOD)

    def _below(self, canvas: Canvas, u: Array, v: Array, cavity: Mask, wobble: Array) -> None:
        top = self.diaphragm + 0.55 * (u - self.dome) ** 2 - 0.22 * (u < self.dome) * (self.dome - u)
        liver = (
            cavity
            & (v > top + 0.03 * wobble)
            & (u < 0.20 + 0.1 * wobble)
            & canvas.has(Tissue.LUNG, Tissue.BLOOD, Tissue.FAT)
        )
        canvas.paint(liver, Tissue.LIVER)
        self.liver_tree.paint(canvas, Tissue.BLOOD, liver, 0.25 * self.grid.pixel)
        stomach = distance(u, v, (0.55, 0.62), (0.24, 0.17), 0.3) + 0.03 * wobble
        canvas.paint((stomach < 0) & cavity, Tissue.BOWEL_WALL)
        canvas.paint((stomach < -self.width(0.02, 0.4)) & cavity, Tissue.BOWEL_CONTENT)

    def _ventricles(self, canvas: Canvas, u: Array, v: Array, cavity: Mask, wobble: Array, z: float) -> None:
        taper = float(np.sqrt(max(1.0 - (max(z + 0.25, 0.0) / 1.6) ** 2, 0.05)))
        outer = self.outer * taper
        wall = self.wall * (1.0 + 0.15 * z)
        cu, cv = self.centre
        left = distance(u, v, (cu, cv), (outer * self.oval, outer)) + 0.010 * wobble
        reach = bell(z, -0.5, 1.45)
        rx, ry = self.right[0] * reach, self.right[1] * reach
        away = 0.80 * outer + 0.25 * rx
        ru, rv = cu + away * np.cos(self.septum), cv + away * np.sin(self.septum)
        # The right ventricle wraps around the septum: an ellipse behind the left one, which is cut off.
        right = distance(u, v, (ru, rv), (rx, ry), self.septum - np.pi) + 0.012 * wobble
        pericardium = np.minimum(left, right) < self.epicardial
        rim = self.width(1.2 * _MM, 0.3)
        canvas.paint((np.minimum(left, right) < self.epicardial + rim) & cavity, Tissue.LIGAMENT)
        canvas.paint(pericardium & cavity, Tissue.FAT)
        rough = canvas.field(self.trabeculae)
        thin = self.width(3.5 * _MM, 0.8)
        canvas.paint(right < 0, Tissue.MYOCARDIUM)
        canvas.paint(right + 0.013 * np.maximum(rough, 0.0) * (1.0 + wobble) < -thin, Tissue.BLOOD)
        canvas.paint(left < 0, Tissue.MYOCARDIUM)
        pool = left + 0.011 * np.maximum(rough, 0.0) * (1.0 + wobble) < -wall
        canvas.paint(pool, Tissue.BLOOD)
        if z < -0.72:  # the outflow tract opens the ring at the base
            outflow = distance(u, v, (cu - 0.30 * outer, cv - 0.62 * outer), (0.34 * outer, 0.34 * outer))
            canvas.paint((outflow < 0) & (left < -0.03), Tissue.BLOOD)
        shown = bell(z, 0.05, 0.6)
        inner = outer - wall
        for angle in self.papillary[:2]:
            place = (cu + 0.72 * inner * np.cos(angle), cv + 0.72 * inner * np.sin(angle))
            size = self.papillary[2] * shown
            canvas.paint(ellipse(u, v, place, (size, 0.8 * size), angle) + 0.1 * rough < 1, Tissue.MYOCARDIUM)
        band = 0.014 * bell(z, 0.1, 0.4)
        start = (cu + outer * np.cos(self.septum + 0.5), cv + outer * np.sin(self.septum + 0.5))
        end = (
            cu + (outer + 1.2 * rx) * np.cos(self.septum + 0.2),
            cv + (outer + rx) * np.sin(self.septum + 0.2),
        )
        canvas.tube(start, end, (band, band), Tissue.MYOCARDIUM, (right < -thin) & (left > 0))
