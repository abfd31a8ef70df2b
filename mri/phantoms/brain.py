"""The head in axial slices, from the midbrain (z = −1) to the vertex (z = 1)."""

from __future__ import annotations

import numpy as np

from mri.phantoms.anatomy import Anatomy, speckle
from mri.phantoms.canvas import Canvas, Grid, Mask
from mri.phantoms.fields import Array, Streams
from mri.phantoms.shapes import bell, distance, ellipse, segment_distance, zero_distance
from mri.phantoms.tissues import Tissue

_MM = 1.0 / 115.0  # half the field of view is 115 mm


class Brain(Anatomy):
    """Scalp, skull, folded cortex, white matter, ventricles, deep grey nuclei, cerebellum.

    The cortex is a ribbon of even thickness along the brain's surface and along the zero level of a
    random field, the sulci.
    """

    deformation = 0.018

    def __init__(self, streams: Streams, grid: Grid) -> None:
        super().__init__(streams, grid)
        self.radii = (self.number(0.64, 0.74), self.number(0.80, 0.92))
        self.egg = self.number(0.05, 0.20)
        self.scalp = self.number(3.2, 6.8) * _MM
        self.skull = self.number(5.0, 8.0) * _MM
        self.atrophy = self.number(0.5, 2.0)
        self.ventricles = self.number(0.6, 1.7)
        self.gyri = self.number(9.0, 13.0)
        self.tilt = self.number(-0.12, 0.12)
        self.thickness = self.number(2.6, 3.4) * _MM
        self.sulcal_depth = self.number(0.17, 0.25)
        self.nuclei = self.number(0.88, 1.12)
        self.shift = (self.number(-0.04, 0.04), self.number(-0.04, 0.04))
        self.folding = self.field("folding", 0.30, ring=True, evolution=1.5)
        self.folding_fine = self.field("folding-fine", 0.17, ring=True, evolution=2.5)
        self.depth_field = self.field("depth", 0.35, evolution=1.5)
        self.opening = self.field("opening", 0.22, evolution=2.0)
        self.midline = self.field("midline", 0.7)
        self.tracts = self.field("tracts", (self.fine(0.035), self.fine(0.10)), ring=True, evolution=6.0)
        self.grain = self.field("grain", self.fine(0.02), evolution=20.0)
        self.folia = self.number(0.050, 0.062)

    def draw(self, canvas: Canvas) -> None:
        """Paint the slice at ``canvas.z``."""
        z = canvas.z
        scale = 1.0 - 0.26 * max(z, 0.0) ** 2 - 0.10 * max(-z, 0.0) ** 2
        c, s = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        u, v = canvas.u - self.shift[0], canvas.v - self.shift[1]
        u, v = c * u + s * v, c * v - s * u
        u = u * (1.0 - np.float32(self.egg) * v)  # the forehead is narrower than the back of the head
        radii = (self.radii[0] * scale, self.radii[1] * scale)
        depth = -distance(u, v, (0.0, 0.0), radii)
        self._shells(canvas, depth)
        inner = depth - np.float32(self.scalp + self.skull)
        brain = inner > np.float32((1.2 + 1.0 * self.atrophy) * _MM)
        below = inner - np.float32((1.2 + 1.0 * self.atrophy) * _MM)
        self._cortex(canvas, u, v, below, brain)
        self._deep(canvas, u, v, z)
        if z < -0.45:
            self._posterior_fossa(canvas, u, v, z, brain)
        sinus = distance(u, v, (0.0, radii[1] - self.scalp - self.skull - 0.015), (0.03, 0.035)) < 0
        canvas.paint(sinus, Tissue.FLOWING_BLOOD)
        speckle(canvas, self.tracts, 0.035, Tissue.WHITE_MATTER)
        speckle(canvas, self.grain, 0.05, Tissue.GREY_MATTER, Tissue.DEEP_GREY, Tissue.FAT, Tissue.MARROW)

    def _shells(self, canvas: Canvas, depth: Array) -> None:
        table = self.width(1.9 * _MM, 0.35)
        canvas.paint(depth > 0, Tissue.SKIN)
        canvas.paint(depth > self.width(1.8 * _MM, 0.4), Tissue.FAT)
        canvas.paint(depth > self.scalp, Tissue.CORTICAL_BONE)
        canvas.paint((depth > self.scalp + table) & (depth < self.scalp + self.skull - table), Tissue.MARROW)
        canvas.paint(depth > self.scalp + self.skull, Tissue.CSF)

    def _cortex(self, canvas: Canvas, u: Array, v: Array, below: Array, brain: Mask) -> None:
        spacing = 2.0 / (self.grid.supersampling * round(2.0 / self.grid.pixel))
        # Sulci run inwards from the surface, bent and joined by noise: the zero level of radial stripes
        # is displaced by two octaves of band-passed fields.
        angle = np.arctan2(v, u * 1.2)
        coarse = canvas.field(self.folding)
        folds = (
            np.sin(self.gyri * angle + 1.5 * coarse) + 0.55 * coarse + 0.45 * canvas.field(self.folding_fine)
        )
        sulcus = zero_distance(folds.astype(np.float32), spacing)
        reach = self.sulcal_depth + 0.045 * canvas.field(self.depth_field) - 0.04 * max(canvas.z, 0.0)
        sulcus += 1.2 * np.maximum(below - reach, 0.0)
        # The longitudinal fissure, open in front and behind, and through the whole vertex.
        bend = 0.012 * canvas.field(self.midline)
        closed = max(0.0, 0.42 - 1.1 * max(canvas.z - 0.15, 0.0))
        fissure = np.abs(u + bend) + np.maximum(closed - np.abs(v + 0.03), 0.0)
        sylvian = self._sylvian(u, v, canvas.z)
        surface = np.minimum(np.minimum(below, sulcus), np.minimum(fissure, sylvian))
        # Sulci are open at the surface and closed at the bottom, some more than others.
        open_ = np.clip(0.75 - 0.5 * below / self.sulcal_depth + 0.35 * canvas.field(self.opening), 0.12, 1.4)
        gap = self.width(0.55 * self.atrophy * _MM, 0.18) * open_
        ribbon = self.width(self.thickness, 0.55)
        canvas.paint(brain, Tissue.WHITE_MATTER)
        canvas.paint(brain & (surface < gap + ribbon), Tissue.GREY_MATTER)
        canvas.paint(brain & (np.minimum(sulcus, np.minimum(fissure, sylvian)) < gap), Tissue.CSF)
        falx = (np.abs(u + bend) < self.width(0.5 * _MM, 0.15)) & (np.abs(v) > closed + 0.05)
        canvas.repaint(falx, Tissue.CSF, Tissue.LIGAMENT)

    def _sylvian(self, u: Array, v: Array, z: float) -> Array:
        if z > 0.25:
            return np.full(u.shape, np.float32(9.0))
        side = np.abs(u)
        insula = segment_distance(side, v, (0.385, -0.14), (0.41, 0.12))
        mouth = segment_distance(side, v, (0.40, -0.03), (0.66, -0.10))
        return np.minimum(insula, mouth) + np.float32(0.02 * max(0.0, z + 0.1))

    def _deep(self, canvas: Canvas, u: Array, v: Array, z: float) -> None:
        side = np.abs(u)
        n, size = self.nuclei, self.ventricles
        low = bell(z, -0.35, 0.65)
        if low > 0:
            for centre, radii, angle, tissue in (
                ((0.275, -0.02), (0.055, 0.165), -0.22, Tissue.DEEP_GREY),
                ((0.105, 0.10), (0.080, 0.135), 0.30, Tissue.DEEP_GREY),
            ):
                level = ellipse(side, v, centre, (radii[0] * n * low, radii[1] * n * low), -angle)
                canvas.paint(level < 1, tissue)
            pallidum = ellipse(side, v, (0.205, -0.005), (0.038 * n * low, 0.10 * n * low), 0.35)
            canvas.paint(pallidum < 1, Tissue.STROMA)  # iron makes it darker than the putamen
        body = bell(z, 0.0, 0.75)
        caudate = ellipse(side, v, (0.135 + 0.02 * size, -0.19), (0.042 * n * body, 0.10 * n * body), 0.35)
        canvas.paint(caudate < 1, Tissue.DEEP_GREY)
        spread = 0.045 + 0.025 * size
        horn = ellipse(side, v, (spread + 0.02, -0.20), (0.026 * size * body, 0.125 * body), -0.30)
        trigone = ellipse(side, v, (spread + 0.09, 0.24), (0.036 * size * body, 0.16 * body), -0.42)
        canvas.paint((horn < 1) | (trigone < 1), Tissue.CSF)
        roof = bell(z, 0.30, 0.32)
        canvas.paint(
            ellipse(side, v, (spread + 0.03, 0.0), (0.036 * size * roof, 0.27 * roof), -0.1) < 1, Tissue.CSF
        )
        third = bell(z, -0.5, 0.45)
        canvas.paint(
            ellipse(u, v, (0.0, 0.07), (0.011 * size * third + 0.004 * third, 0.11 * third)) < 1, Tissue.CSF
        )

    def _posterior_fossa(self, canvas: Canvas, u: Array, v: Array, z: float, brain: Mask) -> None:
        grown = min(1.0, (-0.45 - z) / 0.25 + 0.35)
        level = ellipse(u, v, (0.0, 0.50), (0.46 * grown, 0.27 * grown))
        vermis = np.float32(0.5) * u * u
        folia = np.abs(((v - 0.35 * np.abs(u) + vermis) / self.folia) % 1.0 - 0.5) * 2.0
        cerebellum = brain & (level < 1)
        canvas.paint(brain & (level < 1.07), Tissue.CSF)
        canvas.paint(cerebellum, Tissue.GREY_MATTER)
        canvas.paint(cerebellum & (folia < 0.16) & (level > 0.50), Tissue.CSF)
        core = ellipse(np.abs(u), v, (0.17, 0.47), (0.14 * grown, 0.10 * grown))
        canvas.paint(core < 1, Tissue.WHITE_MATTER)
        # Cerebral peduncles and tectum, with the cisterns around them.
        peduncle = distance(np.abs(u), v, (0.075, 0.055), (0.075, 0.105), 0.5)
        stem = np.minimum(peduncle, distance(u, v, (0.0, 0.17), (0.125, 0.085)))
        star = segment_distance(np.abs(u), v, (0.0, -0.075), (0.055, -0.095)) - np.float32(0.018)
        canvas.paint((stem < 0.018 + 0.008 * self.atrophy) | (star < 0.0), Tissue.CSF)
        canvas.paint(stem < 0.0, Tissue.WHITE_MATTER)
        canvas.paint(ellipse(np.abs(u), v, (0.050, 0.10), (0.026, 0.018)) < 1, Tissue.DEEP_GREY)
        canvas.paint(ellipse(u, v, (0.0, 0.205), (0.020, 0.012)) < 1, Tissue.CSF)
