"""Tissues, sequences and the spin-echo signal."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri.phantoms.sequences import acquisition_for, sequence_for, spin_echo, tissue_signals
from mri.phantoms.tissues import TISSUES, Tissue, relaxation_at

CONTRASTS = ("T1w", "T2w", "PDw", "PDw-FS", "T2w-FS")
ORGANS = ("brain", "knee", "abdomen", "heart", "prostate")


def bloch_spin_echo(t1: float, t2: float, tr: float, te: float) -> float:
    """Echo in the steady state of 90°, TE/2, 180°, TE/2, wait; by the Bloch equations, pulse by pulse."""

    def relax(mxy: float, mz: float, time: float) -> tuple[float, float]:
        return mxy * math.exp(-time / t2), 1.0 + (mz - 1.0) * math.exp(-time / t1)

    mz, echo = 1.0, 0.0
    for _ in range(60):
        mxy, mz = relax(mz, 0.0, te / 2)
        mxy, mz = relax(mxy, -mz, te / 2)
        echo = mxy
        _, mz = relax(0.0, mz, tr - te)  # spoiled
    return echo


@given(t1=st.floats(200, 4500), t2=st.floats(5, 2000), tr=st.floats(300, 8000), te=st.floats(5, 150))
def test_the_spin_echo_is_its_closed_form(t1: float, t2: float, tr: float, te: float) -> None:
    """S = M0 (1 − exp(−TR/T1)) exp(−TE/T2), written out with scalars."""
    expected = 0.7 * (1.0 - math.exp(-tr / t1)) * math.exp(-te / t2)
    assert spin_echo(0.7, t1, t2, tr=tr, te=te) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("tissue", [Tissue.WHITE_MATTER, Tissue.LIVER, Tissue.CSF, Tissue.FAT, Tissue.MUSCLE])
def test_the_closed_form_agrees_with_the_bloch_equations_for_short_echoes(tissue: Tissue) -> None:
    """The approximation TE ≪ TR costs less than 3 % of the recovered magnetisation in every protocol."""
    entry = TISSUES[tissue]
    for contrast in CONTRASTS:
        sequence = sequence_for("brain", contrast)
        t1, t2 = entry.t1[1], entry.t2[1]
        exact = bloch_spin_echo(t1, t2, sequence.tr, sequence.te)
        assert spin_echo(1.0, t1, t2, tr=sequence.tr, te=sequence.te) == pytest.approx(exact, rel=0.03)


def test_the_table_is_met_at_its_own_fields_and_between_them() -> None:
    """Interpolation returns the tabulated T1 and T2 at 1.5 T and 3 T, and their geometric mean at √4.5 T."""
    for field_strength, column in ((1.5, 0), (3.0, 1)):
        _, t1, t2, _ = relaxation_at(field_strength)
        for tissue, entry in TISSUES.items():
            assert t1[tissue] == pytest.approx(entry.t1[column], rel=0.05)
            assert t2[tissue] == pytest.approx(entry.t2[column], rel=0.05)
    _, t1, _, _ = relaxation_at(math.sqrt(4.5))
    white = TISSUES[Tissue.WHITE_MATTER]
    assert t1[Tissue.WHITE_MATTER] == pytest.approx(math.sqrt(white.t1[0] * white.t1[1]), rel=1e-3)


@given(st.floats(0.05, 12.0))
def test_relaxation_stays_physical_at_any_field(field_strength: float) -> None:
    """0 < T2 < T1 for every tissue, from portable scanners to 11.7 T."""
    _, t1, t2, _ = relaxation_at(field_strength)
    assert np.all(t2 > 0)
    assert np.all(t2 < t1)


def test_every_tissue_is_in_the_table() -> None:
    """No label can be painted that has no signal; T1 never falls with the field."""
    assert set(TISSUES) == set(Tissue)
    assert all(entry.t1[1] >= entry.t1[0] for entry in TISSUES.values())


@pytest.mark.parametrize("field_strength", [1.5, 3.0])
def test_contrast_turns_the_way_radiologists_expect(field_strength: float) -> None:
    """Fluid is brightest in T2w and darkest in T1w; grey outshines white matter in T2w, not in T1w."""
    t2 = tissue_signals(sequence_for("brain", "T2w"), field_strength)
    t1 = tissue_signals(sequence_for("brain", "T1w"), field_strength)
    assert t2[Tissue.CSF] > t2[Tissue.GREY_MATTER] > t2[Tissue.WHITE_MATTER]
    assert t1[Tissue.CSF] < t1[Tissue.GREY_MATTER] < t1[Tissue.WHITE_MATTER] < t1[Tissue.FAT]


def test_a_stronger_field_darkens_t1_weighted_images() -> None:
    """T1 grows with the field, so that a fixed TR recovers less of white matter and muscle at 3 T."""
    low = tissue_signals(sequence_for("brain", "T1w"), 1.5)
    high = tissue_signals(sequence_for("brain", "T1w"), 3.0)
    for tissue in (Tissue.WHITE_MATTER, Tissue.GREY_MATTER, Tissue.MUSCLE):
        assert high[tissue] < low[tissue]


@pytest.mark.parametrize("organ", ORGANS)
def test_fat_saturation_removes_fat_and_marrow_only(organ: str) -> None:
    """With the same timing, fat falls below a tenth and marrow below a fifth; water tissue is untouched."""
    sequence = sequence_for(organ, "PDw-FS")
    plain = type(sequence)(sequence.tr, sequence.te)
    with_fat, without = tissue_signals(plain, 3.0), tissue_signals(sequence, 3.0)
    assert without[Tissue.FAT] < 0.1 * with_fat[Tissue.FAT]
    assert without[Tissue.MARROW] < 0.2 * with_fat[Tissue.MARROW]
    assert without[Tissue.MUSCLE] == with_fat[Tissue.MUSCLE]


def test_dark_blood_shows_the_hearts_wall_in_t1w() -> None:
    """T1w of the heart has blood darker than myocardium, T2w brighter."""
    t1 = tissue_signals(sequence_for("heart", "T1w"), 3.0)
    t2 = tissue_signals(sequence_for("heart", "T2w"), 3.0)
    assert t1[Tissue.BLOOD] < 0.5 * t1[Tissue.MYOCARDIUM]
    assert t2[Tissue.BLOOD] > 1.5 * t2[Tissue.MYOCARDIUM]


def test_patients_vary_around_the_table() -> None:
    """The patients' mean signal is the table's within 3 %, and their spread is between 2 and 15 %."""
    sequence = sequence_for("brain", "T2w")
    table = tissue_signals(sequence, 3.0)[Tissue.GREY_MATTER]
    rng = np.random.default_rng(0)
    drawn = np.array([tissue_signals(sequence, 3.0, rng)[Tissue.GREY_MATTER] for _ in range(400)]) / table
    assert abs(drawn.mean() - 1.0) < 0.03
    assert 0.02 < drawn.std() < 0.15


@pytest.mark.parametrize("organ", ORGANS)
@pytest.mark.parametrize("contrast", CONTRASTS)
def test_acquisitions_carry_fastmris_names(organ: str, contrast: str) -> None:
    """Readers of fastMRI's files tell brain and knee by these names, and refuse others."""
    name = acquisition_for(organ, contrast)  # type: ignore[arg-type]
    assert name in {"AXT1", "AXT2", "CORPD_FBK", "CORPDFS_FBK"}
    assert name.startswith("COR") == (organ == "knee")
