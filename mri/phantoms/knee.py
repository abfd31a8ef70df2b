"""The knee in coronal slices, from the patella (z = −1) to the popliteal fossa (z = 1)."""

from __future__ import annotations

import numpy as np

from mri.phantoms.anatomy import Anatomy, speckle, strands
from mri.phantoms.canvas import Canvas, Grid, Mask
from mri.phantoms.fields import Array, Streams
from mri.phantoms.shapes import bell, distance, segment_distance
from mri.phantoms.tissues import Tissue

_MM = 1.0 / 80.0  # half the field of view is 80 mm


class Knee(Anatomy):
    """Femur, tibia, fibula and patella with trabeculae, cartilage, menisci, ligaments, muscles, fat.

    Trabeculae are the crests of anisotropic band-passed noise: thin, nearly straight dark lines, most
    of them along the load.
    """

    deformation = 0.014

    def __init__(self, streams: Streams, grid: Grid) -> None:
        super().__init__(streams, grid)
        self.joint = self.number(-0.12, 0.12)
        self.offset = self.number(-0.06, 0.06)
        self.lateral = 1.0 if self.number(0.0, 1.0) < 0.5 else -1.0  # left or right knee
        self.size = self.number(0.90, 1.10)
        self.condyle = (self.number(0.24, 0.29), self.number(0.23, 0.30))
        self.shaft = self.number(0.19, 0.27)
        self.fat = self.number(0.05, 0.20)
        self.leg = self.number(0.74, 0.90)
        self.valgus = self.number(-0.10, 0.10)
        self.cartilage = self.number(1.6, 3.0) * _MM
        self.muscle = self.number(0.7, 1.15)
        self.effusion = self.number(0.3, 1.6)
        self.density = self.number(0.85, 1.35)
        wave = self.fine(1.3 * _MM, 2.8)
        # Where a pixel holds several trabeculae, what is left of them is coarser and fainter.
        self.density *= float(np.sqrt(1.3 * _MM / wave))
        along = max(2.5 * wave, 7.8 * _MM)
        tilt = np.pi / 2 + self.number(-0.15, 0.15)
        self.load = self.field("trabeculae", (wave, along), ring=True, angle=tilt, evolution=9.0)
        self.cross = self.field("trabeculae-cross", (1.2 * wave, along), ring=True, angle=0.2, evolution=9.0)
        self.marrow = self.field("marrow", 0.25, evolution=2.0)
        self.fibres = self.field(
            "fibres", (self.fine(1.8 * _MM, 3.0), 0.45), ring=True, angle=np.pi / 2 + 0.15, evolution=4.0
        )
        self.septa = self.field("septa", 0.20, ring=True, evolution=2.5)
        self.edge = self.field("edge", 0.30, evolution=2.0)
        self.planes = self.field("planes", (0.26, 1.2), ring=True, angle=np.pi / 2 + 0.15, evolution=1.5)
        self.physis = self.field("physis", 0.12, evolution=2.0)
        self.bundle = self.field("bundle", (self.fine(0.9 * _MM, 2.3), 0.3), ring=True, angle=1.0)

    def draw(self, canvas: Canvas) -> None:
        """Paint the slice at ``canvas.z``."""
        z = canvas.z
        u = (canvas.u - self.offset) * np.float32(self.lateral / self.size)
        v = (canvas.v - self.joint) * np.float32(1.0 / self.size)
        u = u - np.float32(self.valgus) * v
        leg = self._soft_tissue(canvas, u, v, z)
        front = z < -0.55
        femur, notch = self._femur(u, v, z)
        if front:  # only the patella is cut there, and the front of the tibia
            femur = femur + np.float32(9.0)
            self._extensor(canvas, u, v, leg)
        tibia = self._tibia(u, v, z)
        capsule = (np.minimum(femur, tibia) < 0.05) & (np.abs(v) < 0.42) & (np.abs(u) < 0.60)
        canvas.paint(capsule & leg, Tissue.FAT)
        self._joint_space(canvas, u, v, femur, tibia, front)
        self._bone(canvas, femur, v, -0.42, leg)
        self._bone(canvas, tibia, v, 0.30, leg)
        if front:
            self._patella(canvas, u, v, leg)
        else:
            self._ligaments(canvas, u, v, z, notch, leg)
            fibula = distance(u, v, (0.47, 1.05), (0.10, 0.72)) - np.float32(0.02)
            if z > -0.1:
                self._bone(canvas, fibula, v, 9.0, leg)
        if z > 0.55:
            self._popliteal(canvas, u, v, leg)
        speckle(canvas, self.marrow, 0.06, Tissue.MARROW, Tissue.FAT)

    def _soft_tissue(self, canvas: Canvas, u: Array, v: Array, z: float) -> Mask:
        half = self.leg + 0.10 * v * v - 0.05 * abs(z) + 0.03 * np.sin(3.0 * v + self.valgus * 20.0)
        depth = half - np.abs(u)
        leg: Mask = depth > 0
        canvas.paint(leg, Tissue.SKIN)
        canvas.paint(depth > self.width(1.5 * _MM, 0.4), Tissue.FAT)
        inner = depth - np.float32(self.fat)
        # Muscles above and below; around the joint only fat, tendons and the capsule.
        belly = 0.36 + 0.10 * np.abs(u) + (0.15 if z < -0.55 else 0.0) + 0.07 * canvas.field(self.edge)
        if z > 0.45:  # gastrocnemius and hamstrings reach the joint from both sides
            belly = belly - 0.16
        muscle = (inner > 0.025) & ((v < -belly) | (v > belly + 0.02)) & (np.abs(u) < 1.1 * self.muscle)
        canvas.paint(muscle, Tissue.MUSCLE)
        fascia = (np.abs(inner) < self.width(0.6 * _MM, 0.28)) & leg
        canvas.paint(fascia, Tissue.LIGAMENT)
        fibres = canvas.field(self.fibres)
        canvas.repaint(fibres > 2.0, Tissue.MUSCLE, Tissue.FAT)
        canvas.repaint(strands(canvas, self.planes, self.marrow, 0.8 * _MM), Tissue.MUSCLE, Tissue.FAT)
        canvas.modulate(Tissue.MUSCLE, 1.0 + 0.16 * fibres)
        septa = strands(canvas, self.septa, self.edge, 0.5 * _MM)
        canvas.repaint(septa & (depth > 0.03), Tissue.FAT, Tissue.SKIN)
        return leg

    def _femur(self, u: Array, v: Array, z: float) -> tuple[Array, Array]:
        rx, ry = self.condyle
        ry = ry * (1.0 - 0.12 * z * z)
        flare = self.shaft + (0.50 - self.shaft) / (1.0 + np.exp(-(v + 0.58) / 0.09))
        shaft = np.maximum(np.abs(u) - flare, v + 0.30)
        medial = distance(u, v, (-0.265, -0.03 - ry), (rx, ry))
        outer = distance(u, v, (0.265, -0.03 - 0.94 * ry), (rx, ry * 0.94))
        notch = distance(u, v, (0.0, -0.06), (0.10 + 0.03 * z, 0.20 + 0.10 * max(z, 0.0)))
        if z > 0.45:  # behind the shaft only the condyles are cut
            shaft = np.full_like(shaft, np.float32(9.0))
        femur = np.maximum(np.minimum(np.minimum(shaft, medial), outer), -notch)
        return femur, notch

    def _tibia(self, u: Array, v: Array, z: float) -> Array:
        spine = 0.075 * np.exp(-(((np.abs(u) - 0.045) / 0.04) ** 2)) * bell(z, 0.1, 0.8)
        plateau = 0.045 + 0.02 * np.cos(np.minimum(np.abs(u) * 12.0 - 3.1, 3.0)) - spine
        if z < -0.55:
            plateau = plateau + 0.16
        width = self.shaft + 0.02 + (0.27 - 0.12 * max(-z - 0.3, 0.0)) / (1.0 + np.exp((v - 0.38) / 0.09))
        side = np.abs(u) - width
        corner = np.hypot(np.maximum(side + 0.05, 0.0), np.maximum(plateau - v + 0.05, 0.0)) - 0.05
        if z > 0.45:
            side = np.maximum(side, v - 0.48 - 0.6 * u * u)
        result: Array = np.maximum(corner, np.maximum(side, plateau - v)).astype(np.float32)
        return result

    def _joint_space(
        self, canvas: Canvas, u: Array, v: Array, femur: Array, tibia: Array, front: bool
    ) -> None:
        side = np.abs(u)
        thick = self.width(self.cartilage, 0.55)
        between = (v > -0.34) & (v < 0.10) & (side < 0.52)
        gap = between & (femur > 0) & (tibia > 0) & (np.maximum(femur, tibia) < 0.13)
        if not front:
            film = self.width(0.35 * self.effusion * _MM, 0.12)
            canvas.paint(
                gap & (np.abs(femur - tibia) < film + 0.02 * self.effusion) & (side < 0.50),
                Tissue.SYNOVIAL_FLUID,
            )
            canvas.paint(gap & (side > 0.30) & (v > -0.16), Tissue.MENISCUS)
            slit = np.abs(femur - tibia) < self.width(0.3 * _MM, 0.08)
            canvas.repaint(slit & (side < 0.36), Tissue.MENISCUS, Tissue.SYNOVIAL_FLUID)
        cover = (femur > 0) & (femur < thick) & (v > -0.20) & (side < 0.50)
        canvas.paint(
            cover | ((tibia > 0) & (tibia < thick) & (side > 0.08) & (side < 0.46) & (v < 0.12)),
            Tissue.CARTILAGE,
        )
        recess = segment_distance(side, v, (0.53, -0.22), (0.56, -0.08)) < 0.014 * self.effusion
        canvas.paint(recess & (femur > 0), Tissue.SYNOVIAL_FLUID)

    def _bone(self, canvas: Canvas, bone: Array, v: Array, physis: float, leg: Mask) -> None:
        inside = (bone < 0) & leg
        cortex = self.width(1.1 * _MM, 0.42) * (1.0 + np.clip((np.abs(v) - 0.45) * 2.5, 0.0, 2.5))
        canvas.paint(inside, Tissue.MARROW)
        # A trabecula is thinner than a pixel and takes its share of the marrow's signal. Trabeculae thin
        # out towards the shafts, whose marrow is almost pure fat.
        dense = self.density * np.clip(1.25 - 1.1 * np.maximum(np.abs(v) - 0.30, 0.0), 0.15, 1.0)
        load, cross = canvas.field(self.load), canvas.field(self.cross)
        bone_share = np.clip(np.maximum(load, cross - 0.35), 0.0, 1.6) * (0.42 * dense)
        canvas.texture[inside] *= (1.0 - np.clip(bone_share, 0.0, 0.85))[inside]
        line = np.abs(v - physis - 0.05 * canvas.field(self.physis))
        canvas.repaint(inside & (line < self.width(0.6 * _MM, 0.22)), Tissue.MARROW, Tissue.CORTICAL_BONE)
        canvas.paint(inside & (bone > -cortex), Tissue.CORTICAL_BONE)

    def _patella(self, canvas: Canvas, u: Array, v: Array, leg: Mask) -> None:
        tip = u * (1.0 + 0.9 * np.clip(v + 0.40, -0.3, 0.4))  # pointed below
        patella = distance(tip, v, (0.0, -0.40), (0.29, 0.30))
        canvas.paint((patella < 0.030) & leg, Tissue.LIGAMENT)
        self._bone(canvas, patella, v + 0.4, 9.0, leg)

    def _extensor(self, canvas: Canvas, u: Array, v: Array, leg: Mask) -> None:
        quadriceps = (np.abs(u) < 0.12 + 0.10 * np.abs(v + 0.6)) & (v < -0.60)
        patellar = (np.abs(u) < 0.15 - 0.12 * np.clip(v + 0.15, 0.0, 0.6)) & (v > -0.15) & (v < 0.42)
        tendon = leg & (quadriceps | patellar)
        canvas.paint(tendon, Tissue.LIGAMENT)
        canvas.repaint(tendon & (canvas.field(self.fibres) > 0.9), Tissue.LIGAMENT, Tissue.MUSCLE)
        for sign in (-1.0, 1.0):  # the retinacula beside the patella
            line = segment_distance(u, v, (0.30 * sign, -0.40), (0.62 * sign, 0.02))
            canvas.paint(leg & (line < self.width(0.9 * _MM, 0.3)), Tissue.LIGAMENT)

    def _ligaments(self, canvas: Canvas, u: Array, v: Array, z: float, notch: Array, leg: Mask) -> None:
        within = leg & (notch < 0.0)
        canvas.repaint(notch < -0.01, Tissue.SYNOVIAL_FLUID, Tissue.FAT)
        acl = segment_distance(u, v, (0.075, -0.26 + 0.08 * z), (-0.045, 0.02)) < 0.040
        pcl = segment_distance(u, v, (-0.075, -0.20), (0.03 * z, 0.02)) < 0.047 * bell(z, 0.4, 0.8)
        wet = within & (segment_distance(u, v, (0.02, -0.2), (0.0, -0.02)) < 0.18)
        canvas.repaint(wet & (np.abs(canvas.field(self.septa)) < 0.35), Tissue.FAT, Tissue.SYNOVIAL_FLUID)
        ligament = (acl | pcl) & within
        canvas.paint(ligament, Tissue.LIGAMENT)
        canvas.repaint(ligament & (canvas.field(self.bundle) > 0.9), Tissue.LIGAMENT, Tissue.MUSCLE)
        thin = self.width(1.0 * _MM, 0.32)
        mcl = segment_distance(u, v, (-0.545, -0.36), (-0.42, 0.58)) < thin
        mcl_low = segment_distance(u, v, (-0.555, -0.36), (-0.545, 0.05)) < thin
        lcl = segment_distance(u, v, (0.555, -0.34), (0.52, 0.36)) < thin
        band = segment_distance(u, v, (0.66, -1.0), (0.56, 0.10)) < thin
        canvas.paint((mcl_low | (mcl & (v > 0.0)) | lcl | (band if z < 0.3 else lcl)) & leg, Tissue.LIGAMENT)

    def _popliteal(self, canvas: Canvas, u: Array, v: Array, leg: Mask) -> None:
        sway = 0.05 * np.sin(2.5 * v)
        free = leg & ~canvas.has(Tissue.MARROW, Tissue.CORTICAL_BONE, Tissue.CARTILAGE, Tissue.MENISCUS)
        canvas.paint(free & (np.abs(u - sway) < 0.10 + 0.22 * np.exp(-((v / 0.35) ** 2))), Tissue.FAT)
        canvas.paint(free & (np.abs(u - sway + 0.04) < 0.036), Tissue.FLOWING_BLOOD)
        canvas.paint(free & (np.abs(u - sway - 0.05) < 0.032), Tissue.BLOOD)
