"""Proton density and relaxation times of the tissues the phantoms are made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Tissue(IntEnum):
    """What a point of a phantom is made of; the value is its label in a label map."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    CORTICAL_BONE = 4
    MARROW = 5
    CSF = 6
    WHITE_MATTER = 7
    GREY_MATTER = 8
    DEEP_GREY = 9
    BLOOD = 10
    FLOWING_BLOOD = 11
    CARTILAGE = 12
    MENISCUS = 13
    LIGAMENT = 14
    SYNOVIAL_FLUID = 15
    LIVER = 16
    SPLEEN = 17
    KIDNEY_CORTEX = 18
    KIDNEY_MEDULLA = 19
    PANCREAS = 20
    BOWEL_WALL = 21
    BOWEL_CONTENT = 22
    FLUID = 23
    MYOCARDIUM = 24
    LUNG = 25
    PERIPHERAL_ZONE = 26
    CENTRAL_GLAND = 27
    STROMA = 28


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Magnetic properties of one tissue.

    Attributes
    ----------
    m0
        Proton density relative to water.
    t1, t2
        Relaxation times in milliseconds, at 1.5 T and at 3 T.
    fat
        Share of the signal that comes from fat, and that fat saturation removes.
    """

    m0: float
    t1: tuple[float, float]
    t2: tuple[float, float]
    fat: float = 0.0


# Sources, 1.5 T and 3 T, at 37 °C:
#   [S] Stanisz et al., Magn Reson Med 54:507 (2005): heart, blood, muscle; T2 of white and grey matter.
#   [R] Rooney et al., Magn Reson Med 57:308 (2007): T1 of white and grey matter in vivo at 1.5 T.
#   [W] Wansapura et al., J Magn Reson Imaging 9:531 (1999): the same at 3 T.
#   [B] de Bazelaire et al., Radiology 230:652 (2004): liver, spleen, kidney, pancreas, prostate.
#   [G] Gold et al., Am J Roentgenol 183:343 (2004): cartilage, synovial fluid, fat, marrow of the knee.
#   [J] Bojorquez et al., Magn Reson Imaging 35:69 (2017): review; CSF, deep grey matter.
#   [e] estimate: tissues that have too little signal, or vary too much, for one published value.
TISSUES: dict[Tissue, Relaxation] = {
    Tissue.AIR: Relaxation(0.0, (1000, 1000), (50, 50)),
    Tissue.SKIN: Relaxation(0.55, (800, 950), (35, 33)),  # [e]
    Tissue.FAT: Relaxation(0.90, (288, 371), (165, 133), fat=0.97),  # [G]
    Tissue.MUSCLE: Relaxation(0.80, (1008, 1412), (35, 32)),  # T1 [S], T2 [G]
    Tissue.CORTICAL_BONE: Relaxation(0.12, (200, 250), (0.6, 0.5)),  # [e] no signal in a spin echo
    Tissue.MARROW: Relaxation(0.82, (300, 380), (110, 100), fat=0.92),  # [G], shortened by bone
    Tissue.CSF: Relaxation(1.00, (4000, 4300), (2000, 1700)),  # [J]
    Tissue.WHITE_MATTER: Relaxation(0.70, (656, 832), (72, 69)),  # T1 [R, W], T2 [S]
    Tissue.GREY_MATTER: Relaxation(0.82, (1188, 1331), (95, 99)),  # T1 [R, W], T2 [S]
    Tissue.DEEP_GREY: Relaxation(0.80, (1000, 1250), (78, 68)),  # [J], iron shortens T2
    Tissue.BLOOD: Relaxation(0.88, (1441, 1932), (290, 275)),  # [S], flow compensated or slow
    Tissue.FLOWING_BLOOD: Relaxation(0.06, (1441, 1932), (290, 275)),  # [e] flow void of a spin echo
    Tissue.CARTILAGE: Relaxation(0.80, (1060, 1240), (42, 37)),  # [G]
    Tissue.MENISCUS: Relaxation(0.45, (900, 1000), (11, 9.5)),  # [e]
    Tissue.LIGAMENT: Relaxation(0.40, (600, 750), (8, 7)),  # [e]
    Tissue.SYNOVIAL_FLUID: Relaxation(0.98, (2850, 3620), (1210, 767)),  # [G]
    Tissue.LIVER: Relaxation(0.78, (586, 809), (46, 34)),  # [B]
    Tissue.SPLEEN: Relaxation(0.82, (1057, 1328), (79, 61)),  # [B]
    Tissue.KIDNEY_CORTEX: Relaxation(0.84, (966, 1142), (87, 76)),  # [B]
    Tissue.KIDNEY_MEDULLA: Relaxation(0.90, (1412, 1545), (95, 88)),  # [B]; T2 of its inner zone [e]
    Tissue.PANCREAS: Relaxation(0.78, (584, 725), (46, 43)),  # [B]
    Tissue.BOWEL_WALL: Relaxation(0.78, (850, 1100), (50, 45)),  # [e]
    Tissue.BOWEL_CONTENT: Relaxation(0.75, (700, 850), (130, 110)),  # [e]
    Tissue.FLUID: Relaxation(0.98, (3200, 3500), (900, 750)),  # [e] bile, urine, gastric fluid
    Tissue.MYOCARDIUM: Relaxation(0.80, (1030, 1471), (45, 47)),  # [S]
    Tissue.LUNG: Relaxation(0.16, (1200, 1350), (40, 30)),  # [e] mostly air
    Tissue.PERIPHERAL_ZONE: Relaxation(0.90, (1450, 1650), (170, 150)),  # T1 [B], T2 [e]
    Tissue.CENTRAL_GLAND: Relaxation(0.85, (1317, 1597), (95, 84)),  # [B]
    Tissue.STROMA: Relaxation(0.80, (1200, 1450), (58, 50)),  # [e] fibromuscular tissue, capsule
}


def relaxation_at(field_strength: float) -> tuple[npt.NDArray[np.float64], ...]:
    """Properties of every tissue at one field strength.

    T1 and T2 follow the power law T = a·B₀ᵇ (Bottomley et al., Med Phys 11:425, 1984) through the two
    tabulated points, and the exponent is limited to 0 ≤ b ≤ 1 for T1 and −0.5 ≤ b ≤ 0.2 for T2, so that
    fields outside 1.5 to 3 T stay sensible; T2 is at most 0.9 T1.

    Parameters
    ----------
    field_strength
        B₀ in tesla.

    Returns
    -------
    tuple of arrays
        M0, T1 (ms), T2 (ms) and share of fat; each ``(tissues,)``, indexed by :class:`Tissue`.
    """
    order = [TISSUES[tissue] for tissue in Tissue]
    m0 = np.array([entry.m0 for entry in order])
    fat = np.array([entry.fat for entry in order])
    t1 = _power_law(np.array([entry.t1 for entry in order]), field_strength, 0.0, 1.0)
    t2 = np.minimum(_power_law(np.array([entry.t2 for entry in order]), field_strength, -0.5, 0.2), 0.9 * t1)
    return m0, t1, t2, fat


def _power_law(
    points: npt.NDArray[np.float64], field_strength: float, low: float, high: float
) -> npt.NDArray[np.float64]:
    exponent = np.clip(np.log(points[:, 1] / points[:, 0]) / np.log(2.0), low, high)
    # Anchored at the nearer tabulated field, so that a limited exponent still meets the table there.
    anchor, column = (1.5, 0) if field_strength < np.sqrt(4.5) else (3.0, 1)
    result: npt.NDArray[np.float64] = points[:, column] * (field_strength / anchor) ** exponent
    return result
