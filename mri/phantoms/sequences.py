"""Spin-echo sequences: their timing for each organ and contrast, and the signal they give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mri.phantoms.tissues import Tissue, relaxation_at
from reconsent.config import Contrast

FAT_SATURATION = 0.93
"""Share of the fat signal that a spectral saturation pulse removes."""


BLOOD_SUPPRESSION = 0.88
"""Share of the blood signal that a double inversion removes."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """A spin-echo sequence.

    Attributes
    ----------
    tr, te
        Repetition and (effective) echo time in milliseconds.
    fat_saturated
        Whether a spectral pulse saturates fat before each excitation.
    dark_blood
        Whether a double inversion nulls blood that flows into the slice (Edelman et al., Radiology
        181:655, 1991).
    """

    tr: float
    te: float
    fat_saturated: bool = False
    dark_blood: bool = False


_TIMING: dict[Contrast, tuple[float, float]] = {
    "T1w": (600.0, 11.0),
    "T2w": (5000.0, 98.0),
    "PDw": (3000.0, 22.0),
    "PDw-FS": (3000.0, 28.0),
    "T2w-FS": (5000.0, 90.0),
}

# Where an organ's protocols differ: the knee's are fastMRI's; liver and heart have short T2, and the
# heart's TR is one or three heart beats.
_SPECIAL: dict[tuple[str, Contrast], tuple[float, float]] = {
    ("knee", "PDw"): (2750.0, 27.0),
    ("knee", "PDw-FS"): (2870.0, 33.0),
    ("knee", "T2w"): (4000.0, 65.0),
    ("knee", "T2w-FS"): (4000.0, 60.0),
    ("abdomen", "T2w"): (3600.0, 66.0),
    ("abdomen", "T2w-FS"): (3600.0, 64.0),
    ("heart", "T1w"): (850.0, 9.0),
    ("heart", "T2w"): (2600.0, 58.0),
    ("heart", "T2w-FS"): (2600.0, 58.0),
}


def sequence_for(organ: str, contrast: Contrast) -> Sequence:
    """The protocol of one organ and contrast.

    >>> sequence_for("knee", "PDw-FS")
    Sequence(tr=2870.0, te=33.0, fat_saturated=True, dark_blood=False)
    """
    tr, te = _SPECIAL.get((organ, contrast), _TIMING[contrast])
    # Blood and myocardium have nearly equal T1: without dark blood the heart's wall would not be seen.
    return Sequence(tr, te, contrast.endswith("-FS"), organ == "heart" and contrast == "T1w")


def acquisition_for(organ: str, contrast: Contrast) -> str:
    """FastMRI's name for the nearest of its acquisitions.

    fastMRI and its readers know only brain (``AX…``) and knee (``COR…_FBK``) protocols; the true
    contrast is in the volume's notes.
    """
    if organ == "knee":
        return "CORPDFS_FBK" if contrast.endswith("-FS") else "CORPD_FBK"
    return "AXT1" if contrast == "T1w" else "AXT2"


def spin_echo(
    m0: npt.ArrayLike, t1: npt.ArrayLike, t2: npt.ArrayLike, *, tr: float, te: float
) -> npt.NDArray[np.float64]:
    """Magnitude of a spin echo, S = M0 (1 − exp(−TR/T1)) exp(−TE/T2), for TE ≪ TR.

    Parameters
    ----------
    m0, t1, t2
        Proton density (any unit) and relaxation times in milliseconds; arrays that broadcast.
    tr, te
        Repetition and echo time in milliseconds.
    """
    recovered = -np.expm1(-tr / np.asarray(t1, dtype=np.float64))
    signal: npt.NDArray[np.float64] = (
        np.asarray(m0, dtype=np.float64) * recovered * np.exp(-te / np.asarray(t2, dtype=np.float64))
    )
    return signal


def tissue_signals(
    sequence: Sequence, field_strength: float, rng: np.random.Generator | None = None
) -> npt.NDArray[np.float32]:
    """Signal of every tissue in one patient.

    Parameters
    ----------
    sequence
        Timing, and whether fat is saturated.
    field_strength
        B₀ in tesla.
    rng
        Source of the patient's variation: M0 by 3 %, T1 and T2 by 5 % (standard deviations). ``None``
        for the table's own values.

    Returns
    -------
    array
        float32, ``(tissues,)``, indexed by :class:`~mri.phantoms.tissues.Tissue`.
    """
    m0, t1, t2, fat = relaxation_at(field_strength)
    if rng is not None:
        spread = np.array([[0.03], [0.05], [0.05]])
        factors = np.exp(spread * np.clip(rng.standard_normal((3, m0.size)), -2.0, 2.0))
        m0, t1, t2 = m0 * factors[0], t1 * factors[1], t2 * factors[2]
    signal = spin_echo(m0, t1, t2, tr=sequence.tr, te=sequence.te)
    if sequence.fat_saturated:
        signal *= 1.0 - FAT_SATURATION * fat
    if sequence.dark_blood:
        signal[Tissue.BLOOD] *= 1.0 - BLOOD_SUPPRESSION
    return signal.astype(np.float32)
