"""Volumes on disk: the round trip, and other programs reading what was written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import fastmri
import h5py
import numpy as np
import pytest
import torch
from fastmri.data.mri_data import SliceDataset
from fastmri.data.subsample import EquispacedMaskFractionFunc
from fastmri.data.transforms import VarNetDataTransform
from ismrmrd import xsd

from mri.fastmri_file import read_header, read_volume, write_volume
from mri.fourier import fft2c, ifft2c, reconstruct
from mri.phantoms import synthesise_volume
from mri.volume import Volume
from mri.volume_checks import centre_crop
from reconsent.config import PhantomConfig
from reconsent.errors import DataError


@pytest.fixture(scope="module")
def volume() -> Volume:
    config = PhantomConfig(matrix=(48, 36), slices=3, coils=3)
    return synthesise_volume("abdomen", config, seed=1, name="patient-7")


@pytest.fixture
def path(volume: Volume, tmp_path: Path) -> Path:
    path = tmp_path / "patient-7.h5"
    write_volume(path, volume)
    return path


def test_round_trip_keeps_everything(volume: Volume, path: Path) -> None:
    """What is read equals what was written, in every attribute."""
    found = read_volume(path)
    for field in dataclasses.fields(Volume):
        assert np.array_equal(getattr(found, field.name), getattr(volume, field.name)), field.name
    assert found.kspace.dtype == np.complex64
    assert found.target.dtype == np.float32


def test_equal_volumes_give_equal_bytes(volume: Volume, path: Path, tmp_path: Path) -> None:
    """A file depends on its volume alone, not on the time or the process."""
    write_volume(tmp_path / "again.h5", volume)
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()


def test_failed_write_leaves_the_old_file(volume: Volume, path: Path) -> None:
    """A volume that cannot be written leaves the file that was there, and no part of another."""
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_volume(path, dataclasses.replace(volume, notes={"bad": object()}))  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_fourier_transforms_equal_fastmris(volume: Volume) -> None:
    """The transforms agree with fastMRI's own, for odd sizes too."""
    for columns in (36, 35):
        kspace = np.ascontiguousarray(volume.kspace[..., :columns])
        theirs = fastmri.ifft2c(torch.view_as_real(torch.from_numpy(kspace)))
        np.testing.assert_allclose(ifft2c(kspace), torch.view_as_complex(theirs).numpy(), atol=1e-9)
        np.testing.assert_allclose(fft2c(ifft2c(kspace)), kspace, atol=1e-9)


def test_header_agrees_with_the_volume(volume: Volume, path: Path) -> None:
    """The cheap metadata are those of the volume."""
    header = read_header(path)
    assert (header.slices, header.coils, header.rows, header.columns) == volume.kspace.shape
    assert header.target_shape == volume.target.shape[1:]
    assert (header.name, header.patient, header.organ) == ("patient-7", "patient-7", "abdomen")
    assert (header.provenance, header.padding) == ("phantom", (0, 36))
    assert header.size_bytes == volume.kspace.nbytes + volume.target.nbytes


def test_fastmri_reads_it(volume: Volume, path: Path) -> None:
    """fastMRI's SliceDataset and VarNetDataTransform take the file, and mask its k-space."""
    transform = VarNetDataTransform(EquispacedMaskFractionFunc([0.2], [3]))
    dataset = SliceDataset(path.parent, "multicoil", transform)
    assert len(dataset) == 3
    sample = dataset[1]
    np.testing.assert_array_equal(sample.target.numpy(), volume.target[1])
    assert sample.max_value == volume.maximum
    assert sample.crop_size == volume.target.shape[1:]
    full = torch.view_as_real(torch.from_numpy(volume.kspace[1]))
    assert torch.equal(sample.masked_kspace, full * sample.mask)
    assert 0 < sample.mask.float().mean() < 0.5


@pytest.mark.parametrize("padding", [(0, 36), (4, 33), (1, 36), (0, 30)])
def test_fastmri_sees_the_padding(volume: Volume, tmp_path: Path, padding: tuple[int, int]) -> None:
    """fastMRI derives from the header the very phase encodes that were acquired."""
    kspace = volume.kspace.copy()
    kspace[..., : padding[0]] = 0
    kspace[..., padding[1] :] = 0
    padded = dataclasses.replace(volume, kspace=kspace, target=reconstruct(kspace), padding=padding)
    write_volume(tmp_path / "p.h5", padded)
    attributes = SliceDataset(tmp_path, "multicoil")[0][3]
    assert (attributes["padding_left"], attributes["padding_right"]) == padding
    assert read_volume(tmp_path / "p.h5").padding == padding


def test_header_is_valid_and_names_nobody(path: Path) -> None:
    """The header passes ISMRMRD's schema classes, has the field strength, and says nothing of the patient."""
    with h5py.File(path) as file:
        document = file["ismrmrd_header"][()]
    header = xsd.CreateFromDocument(document)
    assert header.acquisitionSystemInformation.systemFieldStrength_T == 3.0
    assert header.experimentalConditions.H1resonanceFrequency_Hz == pytest.approx(127.7e6, rel=1e-3)
    assert header.subjectInformation is None
    assert b"patient-7" not in document


def test_mrpro_reconstructs_it(volume: Volume, path: Path) -> None:
    """mrpro, which shares no code with fastMRI, reads the file and reconstructs the target from it."""
    phantoms = pytest.importorskip("mrpro.phantoms.fastmri")
    from mrpro.algorithms.reconstruction import DirectReconstruction
    from mrpro.data import DcfData

    kdata = phantoms.FastMRIKDataDataset(path.parent)[1]
    coil_images = DirectReconstruction(kdata, csm=None, noise=None, dcf=DcfData(torch.ones(1)))(kdata)
    image = coil_images.data.abs().square().sum(dim=1).sqrt().squeeze().numpy()
    found = image if image.shape == volume.target[1].shape else image.T
    candidates = [found, found[::-1], found[:, ::-1], found[::-1, ::-1]]
    scaled = [c * (volume.target[1].sum() / c.sum()) for c in candidates]
    errors = [np.linalg.norm(c - volume.target[1]) / np.linalg.norm(volume.target[1]) for c in scaled]
    assert min(errors) < 1e-3


def test_missing_target_is_computed(volume: Volume, path: Path) -> None:
    """Without a target, the root sum of squares is cropped to the header's reconstructed matrix."""
    cropped = dataclasses.replace(volume, target=centre_crop(volume.target, (32, 30)).copy(), truth=None)
    write_volume(path, cropped)
    with h5py.File(path, "a") as file:
        del file["reconstruction_rss"]
        del file.attrs["max"]
        del file.attrs["patient_id"]
        del file.attrs["reconsent_organ"]
        del file.attrs["reconsent_provenance"]
    found = read_volume(path)
    np.testing.assert_allclose(found.target, cropped.target, rtol=1e-5)
    assert (found.patient, found.organ, found.provenance) == ("patient-7", "brain", "acquired")
    assert found.maximum == pytest.approx(cropped.maximum)


def test_single_coil_is_one_coil(volume: Volume, path: Path) -> None:
    """fastMRI's single-coil files are read as one coil, with the emulated single-coil target, not the RSS."""
    single = volume.kspace[:, 0]
    with h5py.File(path, "a") as file:
        del file["kspace"], file["truth"]
        file["kspace"] = single
        file["reconstruction_esc"] = np.abs(ifft2c(single))
    found = read_volume(path)
    assert found.kspace.shape == (3, 1, 48, 36)
    np.testing.assert_allclose(found.target, np.abs(ifft2c(single)))


def test_target_wider_than_kspace_is_kept(volume: Volume, path: Path) -> None:
    """Some of fastMRI's brain volumes have fewer columns than their target."""
    wide = np.pad(volume.target, ((0, 0), (0, 0), (4, 4)))
    write_volume(path, dataclasses.replace(volume, target=wide, truth=None))
    assert read_volume(path).target.shape == (3, 48, 44)


def test_zero_filled_columns_shrink_the_padding(volume: Volume, path: Path) -> None:
    """A header that declares zero-filled columns acquired is corrected from the data."""
    kspace = volume.kspace.copy()
    kspace[..., :5] = 0
    write_volume(path, dataclasses.replace(volume, kspace=kspace))
    assert read_volume(path).padding == (5, 36)


def test_complex128_is_accepted(volume: Volume, path: Path) -> None:
    """Double precision is read as single."""
    with h5py.File(path, "a") as file:
        del file["kspace"]
        file["kspace"] = volume.kspace.astype(np.complex128)
    assert np.array_equal(read_volume(path).kspace, volume.kspace)


def test_cannot_write_what_cannot_be_read(volume: Volume, tmp_path: Path) -> None:
    """Writing refuses a volume that reading would refuse."""
    kspace = volume.kspace.copy()
    kspace[2] = 0
    with pytest.raises(DataError, match=r"Slice 2 .* all zeros"):
        write_volume(tmp_path / "x.h5", dataclasses.replace(volume, kspace=kspace))
    assert not list(tmp_path.iterdir())
