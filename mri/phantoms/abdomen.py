"""The upper abdomen in axial slices, from the dome of the liver (z = −1) to the lower kidneys (z = 1)."""

from __future__ import annotations

import numpy as np

from mri.phantoms.anatomy import Anatomy, speckle, strands
from mri.phantoms.canvas import Canvas, Grid, Mask
from mri.phantoms.fields import Array, Streams
from mri.phantoms.shapes import VesselTree, bell, distance, ellipse, squircle
from mri.phantoms.tissues import Tissue

_MM = 1.0 / 200.0  # half the field of view is 200 mm


class Abdomen(Anatomy):
    """Liver with vessels, spleen, kidneys, stomach, bowel, pancreas, spine, great vessels, body wall.

    Large even organs with smooth outlines, crossed by branching vessels, beside busy round bowel loops.
    """

    deformation = 0.022

    def __init__(self, streams: Streams, grid: Grid) -> None:
        super().__init__(streams, grid)
        self.radii = (self.number(0.82, 0.95), self.number(0.55, 0.72))
        self.fat = self.number(0.035, 0.13)
        self.visceral = self.number(0.02, 0.07)
        self.liver = (self.number(0.86, 1.15), self.number(0.86, 1.15))
        self.spleen = self.number(0.75, 1.35)
        self.kidney = (self.number(0.125, 0.16), self.number(0.145, 0.19))
        self.kidney_shift = (self.number(-0.04, 0.04), self.number(-0.15, 0.15))
        self.pyramids = int(self.shape.integers(6, 10))
        self.stomach = (self.number(0.32, 0.46), self.number(-0.30, -0.16), self.number(0.7, 1.3))
        self.filling = self.number(-0.6, 0.8)
        self.gallbladder = (self.number(-0.30, -0.14), self.number(-0.20, -0.05), self.number(0.045, 0.085))
        self.vertebra = self.number(0.095, 0.12)
        self.aorta = self.number(0.036, 0.052)
        rng = streams("vessels")
        self.portal = VesselTree.grow(rng, (-0.10, -0.02), np.pi + rng.uniform(-0.3, 0.3), 0.19, 0.030, 6)
        self.hepatic = VesselTree.grow(
            rng, (-0.13, 0.06), np.pi * 1.25 + rng.uniform(-0.3, 0.3), 0.20, 0.026, 5
        )
        self.left = VesselTree.grow(rng, (-0.08, -0.10), -np.pi * 0.45, 0.14, 0.018, 4)
        self.loops = self._make_loops(streams("loops"))
        self.outline = self.field("outline", 0.42, evolution=1.2)
        self.parenchyma = self.field("parenchyma", self.fine(0.020), evolution=15.0)
        self.lobules = self.field("lobules", self.fine(0.04), ring=True, evolution=9.0)
        self.mesentery = self.field("mesentery", 0.11, ring=True, evolution=4.0)
        self.content = self.field("content", 0.07, evolution=5.0)
        self.fibres = self.field("fibres", (self.fine(0.022), 0.12), ring=True, angle=0.4, evolution=5.0)

    @staticmethod
    def _make_loops(rng: np.random.Generator) -> Array:
        """Bowel loops ``(n, 6)``: u, v, radius, elongation, angle, slice position they are centred on."""
        rows: list[list[float]] = []
        for _ in range(400):
            u, v, z = rng.uniform(-0.62, 0.66), rng.uniform(-0.46, 0.12), rng.uniform(-0.3, 1.3)
            radius = rng.uniform(0.045, 0.085)
            clash = any(
                np.hypot(u - other[0], v - other[1]) < 0.9 * (radius + other[2]) and abs(z - other[5]) < 0.6
                for other in rows
            )
            if not clash:
                rows.append([u, v, radius, rng.uniform(1.0, 1.9), rng.uniform(0.0, np.pi), z])
        return np.array(rows, dtype=np.float32)

    def draw(self, canvas: Canvas) -> None:
        """Paint the slice at ``canvas.z``."""
        z, u, v = canvas.z, canvas.u, canvas.v
        depth = (1.0 - squircle(u, v, (0.0, 0.0), self.radii)) * np.float32(min(self.radii))
        cavity = self._wall(canvas, u, v, depth, z)
        wobble = canvas.field(self.outline)
        if z > -0.35:
            self._bowel(canvas, u, v, cavity, z)
        self._stomach(canvas, u, v, cavity, wobble, z)
        self._spleen(canvas, u, v, cavity, wobble, z)
        self._liver(canvas, u, v, cavity, wobble, z)
        self._retroperitoneum(canvas, u, v, z)
        for sign in (-1.0, 1.0):
            self._kidney(canvas, u, v, sign, z)
        self._spine(canvas, u, v)
        speckle(
            canvas, self.parenchyma, 0.05, Tissue.LIVER, Tissue.SPLEEN, Tissue.KIDNEY_CORTEX, Tissue.PANCREAS
        )
        speckle(canvas, self.lobules, 0.10, Tissue.PANCREAS, Tissue.MARROW)
        speckle(canvas, self.fibres, 0.13, Tissue.MUSCLE)

    def _wall(self, canvas: Canvas, u: Array, v: Array, depth: Array, z: float) -> Mask:
        # Fat is thickest at the flanks and back.
        fat = self.fat * (1.0 + 0.35 * np.clip(v / self.radii[1], -1.0, 1.0))
        canvas.paint(depth > 0, Tissue.SKIN)
        canvas.paint(depth > self.width(2.0 * _MM, 0.35), Tissue.FAT)
        canvas.repaint(
            strands(canvas, self.mesentery, self.outline, 0.0025) & (depth > 0.02), Tissue.FAT, Tissue.SKIN
        )
        canvas.paint(depth > fat, Tissue.MUSCLE)
        line = np.abs(depth - fat - 0.022) < self.width(0.003, 0.13)
        canvas.paint(line & (np.abs(u) > 0.25), Tissue.FAT)  # between the layers of the flank's muscles
        cavity: Mask = depth > fat + 0.05
        canvas.paint(cavity, Tissue.FAT)
        vessels = strands(canvas, self.mesentery, self.outline, 0.006)
        canvas.repaint(cavity & vessels, Tissue.FAT, Tissue.FLOWING_BLOOD)
        angle = np.arctan2(v / self.radii[1], u / self.radii[0])
        if z < 0.5:  # ribs, cut obliquely
            ribs = (np.abs(np.sin(3.5 * angle + 0.8 * z)) > 0.90) & (np.abs(depth - fat - 0.022) < 0.018)
            canvas.paint(ribs, Tissue.CORTICAL_BONE)
            core = (np.abs(np.sin(3.5 * angle + 0.8 * z)) > 0.94) & (np.abs(depth - fat - 0.022) < 0.009)
            canvas.paint(core, Tissue.MARROW)
        return cavity

    def _liver(self, canvas: Canvas, u: Array, v: Array, cavity: Mask, wobble: Array, z: float) -> None:
        size = 1.0 - 0.30 * max(z + 0.2, 0.0)
        a, b = self.liver
        rx, ry = 0.47 * a * size, 0.46 * b * size
        right = ellipse(u, v, (-0.88 * self.radii[0] + rx, 0.0), (rx, ry)) + 0.06 * wobble
        lobe = bell(z, -0.9, 1.1)
        left = ellipse(u, v, (-0.05, -0.24), (0.36 * a * lobe, 0.15 * b * lobe), 0.12) + 0.06 * wobble
        liver = (np.minimum(right, left) < 1.0) & cavity
        hilum = ellipse(u, v, (-0.05, 0.10), (0.17, 0.17)) < 1.0
        liver &= ~hilum
        canvas.paint(liver, Tissue.LIVER)
        thinnest = 0.30 * self.grid.pixel
        self.portal.paint(canvas, Tissue.BLOOD, liver, thinnest)
        self.hepatic.paint(canvas, Tissue.BLOOD, liver, thinnest)
        self.left.paint(canvas, Tissue.BLOOD, liver, thinnest)
        shown = bell(z, 0.15, 0.55)
        gu, gv, gr = self.gallbladder
        canvas.paint(
            (ellipse(u, v, (gu, gv), (gr * shown, 1.5 * gr * shown), 0.4) < 1) & cavity, Tissue.FLUID
        )

    def _spleen(self, canvas: Canvas, u: Array, v: Array, cavity: Mask, wobble: Array, z: float) -> None:
        size = self.spleen * bell(z, -0.35, 1.0)
        outer = ellipse(u, v, (0.80 * self.radii[0], 0.10), (0.15 * size, 0.27 * size), 0.3) + 0.05 * wobble
        inner = ellipse(u, v, (0.50 * self.radii[0], 0.05), (0.16, 0.2), 0.3)
        canvas.paint((outer < 1) & (inner > 1) & cavity, Tissue.SPLEEN)

    def _stomach(self, canvas: Canvas, u: Array, v: Array, cavity: Mask, wobble: Array, z: float) -> None:
        su, sv, swell = self.stomach
        shown = bell(z, -0.5, 1.0)
        level = distance(u, v, (su, sv), (0.24 * swell * shown, 0.15 * swell * shown), 0.45) + 0.02 * wobble
        canvas.paint((level < 0) & cavity, Tissue.BOWEL_WALL)
        lumen = (level < -self.width(0.016, 0.4)) & cavity
        canvas.paint(lumen, Tissue.BOWEL_CONTENT)
        # The patient lies on the back: gas rises to the front, fluid stays behind.
        surface = sv + 0.10 * self.filling
        canvas.paint(lumen & (v > surface), Tissue.FLUID)
        canvas.paint(lumen & (v < surface - 0.05), Tissue.AIR)

    def _bowel(self, canvas: Canvas, u: Array, v: Array, cavity: Mask, z: float) -> None:
        wall = self.width(0.012, 0.38)
        content = canvas.field(self.content)
        for index, (cu, cv, radius, stretch, angle, centre) in enumerate(self.loops.tolist()):
            shown = bell(z, centre, 0.42)
            if shown < 0.3:
                continue
            level = distance(u, v, (cu, cv), (radius * shown * stretch, radius * shown), angle)
            inside = (level < 0) & cavity
            lumen = (level < -wall) & cavity
            canvas.paint(inside, Tissue.BOWEL_WALL)
            filling = (Tissue.FLUID, Tissue.BOWEL_CONTENT, Tissue.BOWEL_CONTENT, Tissue.AIR)[index % 4]
            canvas.paint(lumen, filling)
            if filling is Tissue.BOWEL_CONTENT:
                canvas.repaint(lumen & (content > 0.7), Tissue.BOWEL_CONTENT, Tissue.FLUID)
                canvas.repaint(lumen & (content < -1.1), Tissue.BOWEL_CONTENT, Tissue.AIR)

    def _retroperitoneum(self, canvas: Canvas, u: Array, v: Array, z: float) -> None:
        pancreas = bell(z, 0.2, 0.5)
        body = ellipse(u, v, (0.13, -0.10 + 0.25 * self.visceral), (0.22 * pancreas, 0.045 * pancreas), -0.25)
        canvas.paint(body < 1, Tissue.PANCREAS)
        canvas.paint(ellipse(u, v, (0.05, 0.075), (self.aorta * 1.25,) * 2) < 1, Tissue.BOWEL_WALL)
        canvas.paint(ellipse(u, v, (0.05, 0.075), (self.aorta, self.aorta)) < 1, Tissue.FLOWING_BLOOD)
        canvas.paint(ellipse(u, v, (-0.075, 0.07), (self.aorta * 1.2, self.aorta)) < 1, Tissue.FLOWING_BLOOD)

    def _kidney(self, canvas: Canvas, u: Array, v: Array, sign: float, z: float) -> None:
        shown = bell(z, 0.45 + 0.5 * sign * self.kidney_shift[1], 0.95)
        rx, ry = self.kidney[0] * shown, self.kidney[1] * shown
        centre = (sign * (0.37 + self.kidney_shift[0]), 0.22 + 0.2 * self.kidney_shift[1])
        tilt = -0.5 * sign
        level = ellipse(u, v, centre, (rx, ry), tilt)
        canvas.paint(level < 1.12 + 3.0 * self.visceral, Tissue.FAT)
        canvas.paint(level < 1.0, Tissue.KIDNEY_CORTEX)
        angle = np.arctan2(v - centre[1], u - centre[0])
        pyramid = np.cos(self.pyramids * angle + sign + 2.0 * z) > np.clip(2.2 * level - 1.6, -0.6, 1.0)
        canvas.paint((level < 0.82) & (level > 0.36) & pyramid, Tissue.KIDNEY_MEDULLA)
        # The sinus opens towards the spine.
        sinus = ellipse(
            u, v, (centre[0] - 0.45 * sign * rx, centre[1] - 0.2 * ry), (0.55 * rx, 0.34 * ry), tilt
        )
        canvas.paint(sinus < 1.0, Tissue.FAT)
        canvas.paint(sinus < 0.45, Tissue.FLUID)

    def _spine(self, canvas: Canvas, u: Array, v: Array) -> None:
        r = self.vertebra
        back = self.radii[1] - 0.6
        canvas.paint(ellipse(np.abs(u), v, (0.155, 0.43 + back), (0.155, 0.11), -0.15) < 1, Tissue.MUSCLE)
        canvas.paint(ellipse(np.abs(u), v, (0.16, 0.235), (0.055, 0.075)) < 1, Tissue.MUSCLE)
        body = distance(u, v, (0.0, 0.215), (r * 1.2, r))
        canvas.paint(body < 0, Tissue.CORTICAL_BONE)
        canvas.paint(body < -self.width(0.008, 0.35), Tissue.MARROW)
        arch = (np.abs(u) < 0.10 - 0.35 * np.abs(v - 0.36)) & (v > 0.30) & (v < 0.46)
        canvas.paint(arch, Tissue.CORTICAL_BONE)
        canvas.paint((np.abs(u) < 0.016) & (v > 0.42) & (v < 0.52 + back), Tissue.MARROW)
        canvas.paint(ellipse(u, v, (0.0, 0.365), (0.05, 0.042)) < 1, Tissue.CSF)
        canvas.paint(ellipse(u, v, (0.0, 0.365), (0.026, 0.022)) < 1, Tissue.WHITE_MATTER)
