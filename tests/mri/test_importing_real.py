"""Imports of real scans, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mri.directory import check_directory
from mri.fastmri_file import read_volume
from mri.importing import ImportOptions, import_directory
from reconsent.errors import DataError


@pytest.fixture
def real_data() -> Path:
    """Directory of real scans: ``RECONSENT_REAL_DATA``, or ``shared/data`` beside the project."""
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    directory = Path(os.environ.get("RECONSENT_REAL_DATA") or beside)
    if not directory.is_dir():
        pytest.skip("real scans are not at hand; set RECONSENT_REAL_DATA to their directory")
    return directory


def test_real_hearts(real_data: Path, tmp_path: Path) -> None:
    """Short-axis cines of two patients become a directory that can be trained on."""
    options = ImportOptions(
        organ="heart",
        matrix=(96, 96),
        coils=4,
        slices=(0, 4),
        patients=("SC-HF-I-01", "SC-HF-I-02"),
        key_file=tmp_path / "key" / "k",
    )
    report = import_directory(
        real_data / "cardiac_sunnybrook" / "sunnybrook_sax.npz", tmp_path / "h", options
    )
    checked = check_directory(tmp_path / "h")
    assert checked.trainable
    assert checked.organs == {"heart": 2}
    assert checked.provenances == {"retrospective": 2}
    assert b"SC-HF" not in b"".join(path.read_bytes() for path in report.volumes)


def test_real_brain_through_real_coils(real_data: Path, tmp_path: Path) -> None:
    """A real brain seen through maps that ESPIRiT estimated from a real 8-channel head coil."""
    options = ImportOptions(
        organ="brain",
        matrix=(96, 80),
        coil_maps=real_data / "sigpy_brain8ch_kspace" / "derived_espirit.npz",
        slices=(60, 100),
        slice_step=10,
        slabs=2,
        key_file=tmp_path / "key" / "k",
    )
    import_directory(real_data / "brain_colin27_mricron" / "ch2.nii.gz", tmp_path / "b", options)
    report = check_directory(tmp_path / "b")
    assert report.trainable
    assert report.coils == {8: 2}
    target = read_volume(tmp_path / "b" / f"{report.volumes[0].name}.h5").target[0]
    # A head in the middle, air around it: the corners are noise, the centre is not.
    assert np.median(target[32:64, 30:50]) > 10 * np.median(target[:8, :8])


def test_real_undersampled_kspace_is_refused(real_data: Path, tmp_path: Path) -> None:
    """Real k-space under a Poisson-disc mask has no reference to train against."""
    options = ImportOptions(organ="brain", key_file=tmp_path / "key" / "k")
    source = real_data / "sigpy_brain8ch_kspace" / "cartesian_ksp.npy"
    with pytest.raises(DataError, match=r"undersampled: 8\d% of the samples"):
        import_directory(source, tmp_path / "k", options)
    assert not (tmp_path / "k").exists()
