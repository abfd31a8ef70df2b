"""The male pelvis in axial slices, from the bladder (z = −1) to the apex of the prostate (z = 1)."""

from __future__ import annotations

import numpy as np

from mri.phantoms.anatomy import Anatomy, speckle, strands
from mri.phantoms.canvas import Canvas, Grid, Mask
from mri.phantoms.fields import Array, Streams
from mri.phantoms.shapes import bell, distance, ellipse, segment_distance, squircle
from mri.phantoms.tissues import Tissue

_MM = 1.0 / 100.0  # half the field of view is 100 mm


class Prostate(Anatomy):
    """Prostate with zones and nodules, seminal vesicles, bladder, rectum, pelvic bones and muscles.

    Small round nodules with dark rims in the middle, broad muscles with oblique fat stripes around.
    """

    deformation = 0.020

    def __init__(self, streams: Streams, grid: Grid) -> None:
        super().__init__(streams, grid)
        self.body = (self.number(1.02, 1.35), self.number(0.80, 0.98))
        self.fat = self.number(0.04, 0.16)
        self.radii = (self.number(0.23, 0.33), self.number(0.18, 0.27))
        self.middle = (self.number(-0.04, 0.04), self.number(-0.06, 0.06))
        self.gland = self.number(0.60, 0.84)
        self.bladder = (self.number(0.30, 0.46), self.number(0.18, 0.30))
        self.rectum = (self.number(0.10, 0.17), self.number(0.09, 0.15))
        self.gas = self.number(-0.6, 0.6)
        self.hip = (self.number(0.66, 0.76), self.number(-0.14, 0.02), self.number(0.20, 0.25))
        self.obturator = self.number(0.05, 0.085)
        self.nodules = self._make_nodules(streams("nodules"))
        self.glandular = self.field("glandular", self.fine(0.050, 2.8), ring=True, evolution=6.0)
        self.acini = self.field("acini", (self.fine(0.03), 0.09), ring=True, angle=0.3, evolution=8.0)
        self.coils = self.field("vesicles", 0.085, ring=True, evolution=5.0)
        self.outline = self.field("outline", 0.35, evolution=1.5)
        self.stripes = (
            self.field("stripes-r", (self.fine(0.055, 3.0), 0.7), ring=True, angle=0.65, evolution=3.0),
            self.field("stripes-l", (self.fine(0.055, 3.0), 0.7), ring=True, angle=-0.65, evolution=3.0),
        )
        self.strands = self.field("strands", 0.13, ring=True, evolution=3.0)
        self.plexus = self.field("plexus", self.fine(0.06, 3.0), ring=True, evolution=5.0)
        self.marrow = self.field("marrow", self.fine(0.045), ring=True, evolution=5.0)

    @staticmethod
    def _make_nodules(rng: np.random.Generator) -> Array:
        """Hyperplastic nodules ``(n, 6)``: u, v in gland radii, radius, slice position, kind, roundness."""
        count = int(rng.integers(4, 13))
        rows = [
            [
                float(rng.uniform(-0.75, 0.75)),
                float(rng.uniform(-0.7, 0.55)),
                float(rng.uniform(0.16, 0.42)),
                float(rng.uniform(-0.9, 0.9)),
                float(rng.integers(0, 3)),
                float(rng.uniform(0.75, 1.2)),
            ]
            for _ in range(count)
        ]
        return np.array(rows, dtype=np.float32)

    def draw(self, canvas: Canvas) -> None:
        """Paint the slice at ``canvas.z``."""
        z, u, v = canvas.z, canvas.u, canvas.v
        depth = (1.0 - squircle(u, v, (0.0, 0.0), self.body)) * np.float32(min(self.body))
        canvas.paint(depth > 0, Tissue.SKIN)
        canvas.paint(depth > self.width(2.0 * _MM, 0.35), Tissue.FAT)
        fibrous = strands(canvas, self.strands, self.outline, 0.006)
        canvas.repaint(fibrous & (depth > 0.03), Tissue.FAT, Tissue.SKIN)
        self._muscles(canvas, u, v, depth)
        self._bones(canvas, u, v, z)
        wobble = canvas.field(self.outline)
        self._pelvis(canvas, u, v, fibrous)
        if z < -0.15:
            self._bladder(canvas, u, v, wobble, z)
        if z < -0.45:
            self._vesicles(canvas, u, v, z)
        self._rectum(canvas, u, v, wobble, z)
        self._gland(canvas, u, v, wobble, z)
        side = np.where(u < 0, canvas.field(self.stripes[0]), canvas.field(self.stripes[1]))
        canvas.repaint(side > 1.9, Tissue.MUSCLE, Tissue.FAT)
        canvas.modulate(Tissue.MUSCLE, 1.0 + 0.13 * side)
        speckle(canvas, self.marrow, 0.12, Tissue.MARROW)
        speckle(canvas, self.acini, 0.13, Tissue.PERIPHERAL_ZONE)
        speckle(canvas, self.glandular, 0.15, Tissue.CENTRAL_GLAND)

    def _muscles(self, canvas: Canvas, u: Array, v: Array, depth: Array) -> None:
        side = np.abs(u)
        inner = depth > self.fat
        gluteus = (
            inner & (v > 0.30 + 0.25 * (0.8 - side)) & (side > 0.05 + 0.35 * (0.95 - v).clip(0.0, 1.0) * 0.3)
        )
        canvas.paint(gluteus & (segment_distance(side, v, (0.0, 0.35), (0.0, 1.2)) > 0.10), Tissue.MUSCLE)
        canvas.paint((distance(side, v, (0.42, -0.60), (0.17, 0.15), 0.5) < 0) & inner, Tissue.MUSCLE)
        canvas.paint((distance(side, v, (0.80, -0.55), (0.15, 0.20), -0.4) < 0) & inner, Tissue.MUSCLE)
        canvas.paint((distance(side, v, (0.22, -0.62), (0.09, 0.13), 0.2) < 0) & inner, Tissue.MUSCLE)
        vessels = ellipse(side, v, (0.50, -0.70), (0.042, 0.046)) < 1
        canvas.paint(vessels & inner, Tissue.FLOWING_BLOOD)
        canvas.paint((ellipse(side, v, (0.41, -0.72), (0.045, 0.040)) < 1) & inner, Tissue.BLOOD)

    def _bones(self, canvas: Canvas, u: Array, v: Array, z: float) -> None:
        side = np.abs(u)
        hu, hv, radius = self.hip
        shell = self.width(2.0 * _MM, 0.4)
        socket = distance(side, v, (hu - 0.05, hv), (radius + 0.095, radius + 0.12))
        canvas.paint(socket < 0, Tissue.CORTICAL_BONE)
        canvas.paint(socket < -shell, Tissue.MARROW)
        column = segment_distance(side, v, (hu - 0.20, hv + 0.22), (hu - 0.10, hv + 0.42)) - np.float32(0.075)
        canvas.paint(column < 0, Tissue.CORTICAL_BONE)
        canvas.paint(column < -shell, Tissue.MARROW)
        head = distance(side, v, (hu + 0.02, hv), (radius, radius))
        canvas.paint(head < 0.035, Tissue.CORTICAL_BONE)
        canvas.paint(head < 0.022, Tissue.CARTILAGE)
        canvas.paint(head < 0.0, Tissue.CORTICAL_BONE)
        canvas.paint(head < -shell, Tissue.MARROW)
        if z > 0.0:  # pubic bones and the symphysis between them
            arm = segment_distance(side, v, (0.06, -0.50), (hu - 0.28, hv - 0.18)) - np.float32(0.085)
            canvas.paint(arm < 0, Tissue.CORTICAL_BONE)
            canvas.paint(arm < -shell, Tissue.MARROW)
            canvas.paint((side < 0.025) & (np.abs(v + 0.50) < 0.10), Tissue.CARTILAGE)
        tail = distance(u, v, (0.0, 0.66), (0.075, 0.045))
        canvas.paint(tail < 0, Tissue.CORTICAL_BONE)
        canvas.paint(tail < -shell, Tissue.MARROW)

    def _pelvis(self, canvas: Canvas, u: Array, v: Array, fibrous: Mask) -> None:
        hu, _, radius = self.hip
        inlet = hu - radius - 0.10
        space = ellipse(u, v, (0.0, 0.02), (inlet, 0.52))
        thick = self.obturator / inlet
        canvas.paint((space < 1.0 + 0.8 * thick) & (np.abs(v - 0.05) < 0.42), Tissue.MUSCLE)
        canvas.paint(space < 1.0 - thick, Tissue.FAT)
        canvas.repaint((space < 1.0 - thick) & fibrous, Tissue.FAT, Tissue.STROMA)
        levator = np.abs(ellipse(np.abs(u), v, (0.0, 0.14), (0.30, 0.40)) - 1.0) < self.width(0.03, 0.5)
        canvas.paint(levator & (v > 0.05) & (space < 1.0), Tissue.MUSCLE)

    def _bladder(self, canvas: Canvas, u: Array, v: Array, wobble: Array, z: float) -> None:
        shown = bell(z, -1.0, 0.85)
        rx, ry = self.bladder
        level = distance(u, v, (self.middle[0], -0.22), (rx * shown, ry * shown)) + 0.02 * wobble
        canvas.paint(level < 0.0, Tissue.STROMA)
        canvas.paint(level < -self.width(0.028, 0.45), Tissue.FLUID)

    def _vesicles(self, canvas: Canvas, u: Array, v: Array, z: float) -> None:
        shown = bell(z, -0.85, 0.4)
        level = ellipse(np.abs(u), v, (0.15, 0.13), (0.17 * shown, 0.055 * shown), -0.25)
        canvas.paint(level < 1, Tissue.STROMA)
        canvas.repaint((level < 1) & (np.abs(canvas.field(self.coils)) > 0.45), Tissue.STROMA, Tissue.FLUID)

    def _rectum(self, canvas: Canvas, u: Array, v: Array, wobble: Array, z: float) -> None:
        rx, ry = self.rectum
        squeeze = 1.0 - 0.35 * max(z, 0.0)
        centre = (self.middle[0], self.middle[1] + self.radii[1] + ry * squeeze + 0.10)
        level = distance(u, v, centre, (rx * squeeze, ry * squeeze)) + 0.015 * wobble
        canvas.paint(level < 0.02, Tissue.BOWEL_WALL)
        canvas.paint(level < 0.02 - self.width(0.035, 0.5), Tissue.BOWEL_CONTENT)
        lumen = level < 0.02 - self.width(0.035, 0.5)
        canvas.paint(lumen & (v < centre[1] + self.gas * ry), Tissue.AIR)

    def _gland(self, canvas: Canvas, u: Array, v: Array, wobble: Array, z: float) -> None:
        shown = bell(z, 0.12, 1.0)
        rx, ry = self.radii[0] * shown, self.radii[1] * shown
        if min(rx, ry) < 0.03:
            return
        centre = self.middle
        outer = ellipse(u, v, centre, (rx, ry)) + 0.05 * wobble
        # The venous plexus lies in the fat beside and before the gland.
        around = (outer < 1.20 + 0.08 * wobble) & (outer > 1.0) & (v < centre[1] + 0.45 * ry)
        plexus = canvas.field(self.plexus)
        canvas.repaint(around & (plexus > 0.9), Tissue.FAT, Tissue.BLOOD)
        canvas.repaint(around & (plexus < -0.9), Tissue.FAT, Tissue.STROMA)
        capsule = self.width(1.0 * _MM, 0.35) / min(rx, ry)
        canvas.paint(outer < 1.0 + capsule, Tissue.LIGAMENT)
        canvas.paint(outer < 1.0, Tissue.PERIPHERAL_ZONE)
        size = self.gland * (1.0 - 0.25 * max(z, 0.0))
        gu, gv = centre[0], centre[1] - (1.0 - size) * 0.75 * ry
        gland = ellipse(u, v, (gu, gv), (size * rx, size * ry)) + 0.05 * wobble
        canvas.paint((gland < 1.0 + capsule) & (outer < 1.0), Tissue.STROMA)
        inside = (gland < 1.0) & (outer < 1.0)
        canvas.paint(inside, Tissue.CENTRAL_GLAND)
        for nu, nv, radius, position, kind, round_ in self.nodules.tolist():
            cut = bell(z, position, 0.75) * radius * min(rx, ry)
            if cut < 0.01:
                continue
            place = (gu + nu * size * rx, gv + nv * size * ry)
            level = distance(u, v, place, (cut * round_, cut))
            canvas.paint((level < 0) & inside, Tissue.STROMA)
            filling = (Tissue.PERIPHERAL_ZONE, Tissue.CENTRAL_GLAND, Tissue.STROMA)[int(kind)]
            canvas.paint((level < -self.width(0.010, 0.30)) & inside, filling)
        front = ellipse(u, v, (gu, centre[1] - 0.95 * ry), (0.55 * rx, 0.22 * ry)) < 1
        canvas.paint(front & (outer < 1.0), Tissue.STROMA)
        canvas.paint(ellipse(u, v, (gu, gv + 0.25 * ry), (0.030, 0.040)) < 1, Tissue.STROMA)
        canvas.paint(ellipse(u, v, (gu, gv + 0.25 * ry), (0.014, 0.022)) < 1, Tissue.FLUID)
