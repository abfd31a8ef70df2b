"""Import of magnitude images: NIfTI and NumPy become retrospective volumes."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from mri.directory import check_directory, list_volumes
from mri.fastmri_file import read_volume
from mri.fourier import fft2c, reconstruct
from mri.importing import ImportOptions, import_directory
from mri.importing.coil_maps import continue_maps, resample_maps
from mri.importing.retrospective import crop_kspace, crop_or_pad, images_to_kspace
from reconsent.errors import ConfigError, DataError
from tests.mri.importing_source import correlation, head, options, run


@pytest.mark.parametrize(("axis", "plane"), [("axial", (0, 1)), ("coronal", (0, 2)), ("sagittal", (1, 2))])
def test_nifti_planes_in_any_orientation(tmp_path: Path, axis: str, plane: tuple[int, int]) -> None:
    """However voxels are stored, a plane shows the patient's superior or anterior side at the top."""
    body = np.zeros((40, 44, 48), dtype=np.float32)
    body[8:32, 6:38, 5:43] = 1.0
    body[24:30, 28:36, 33:41] = 3.0  # right, anterior, superior
    stored = np.flip(body.transpose(2, 0, 1), axis=0)
    affine = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 47], [0, 0, 0, 1]], dtype=float)
    image = nib.Nifti1Image(np.ascontiguousarray(stored), affine)
    image.header["descrip"] = b"Jane Doe"
    nib.save(image, tmp_path / "jane.nii.gz")
    report = run(tmp_path / "jane.nii.gz", tmp_path, axis=axis, noise=0.0)
    volume = read_volume(report.volumes[0])
    expected = tuple(body.shape[place] for place in reversed(plane))
    assert volume.target.shape[1:] == expected
    brightest = volume.target[int(volume.target.max(axis=(1, 2)).argmax())]
    row, column = np.unravel_index(brightest.argmax(), brightest.shape)
    assert row < brightest.shape[0] / 2
    assert column < brightest.shape[1] / 2
    assert "descrip" in report.dropped
    assert b"Jane" not in report.volumes[0].read_bytes()


def test_npz_gives_one_volume_a_patient(tmp_path: Path) -> None:
    """Slices of an .npz are grouped by patient_id; a subset of the patients can be taken."""
    patients = np.array(["a", "b", "a", "c", "b"])
    np.savez(tmp_path / "set.npz", image=head(5).astype(np.uint8), patient_id=patients)
    report = run(tmp_path / "set.npz", tmp_path, matrix=(32, 24), coils=3)
    assert sorted(read_volume(path).target.shape for path in report.volumes) == [
        (1, 32, 24),
        (2, 32, 24),
        (2, 32, 24),
    ]
    assert check_directory(tmp_path / "out").trainable
    (tmp_path / "b").mkdir()
    assert run(tmp_path / "set.npz", tmp_path / "b", patients=("c",)).slices == 1
    with pytest.raises(DataError, match="no patients z"):
        run(tmp_path / "set.npz", tmp_path, patients=("z",))


def test_import_is_idempotent_and_never_overwrites(tmp_path: Path) -> None:
    """The same import changes no byte; another one into the same place is refused unless asked for."""
    np.save(tmp_path / "a.npy", head())
    path = run(tmp_path / "a.npy", tmp_path).volumes[0]
    before = path.read_bytes()
    run(tmp_path / "a.npy", tmp_path)
    assert path.read_bytes() == before
    with pytest.raises(DataError, match="exists already"):
        run(tmp_path / "a.npy", tmp_path, seed=1)
    assert path.read_bytes() == before
    run(tmp_path / "a.npy", tmp_path, seed=1, overwrite=True)
    assert path.read_bytes() != before


def test_slabs_and_slices(tmp_path: Path) -> None:
    """Slices outside the body are left out, the range is kept, and slabs share no slice."""
    images = np.concatenate([np.zeros((2, 64, 48), np.float32), head(8), np.zeros((1, 64, 48), np.float32)])
    np.save(tmp_path / "a.npy", images)
    report = run(tmp_path / "a.npy", tmp_path, slices=(1, 9), slabs=2, noise=0.0)
    volumes = [read_volume(path) for path in report.volumes]
    assert [len(volume.target) for volume in volumes] == [4, 3]
    assert len(report.patients) == 2
    assert any("1 empty slices" in remark for remark in report.remarks)
    assert any("slabs that count as patients" in remark for remark in report.remarks)
    assert correlation(volumes[1].target[0], head(8)[4]) > 0.95


def test_noise_is_as_asked(tmp_path: Path) -> None:
    """The standard deviation in the empty corner of k-space is the noise times the image's maximum."""
    images = np.zeros((1, 96, 96), np.float32)
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    images[0] = np.exp(-8 * (y**2 + x**2))
    kspace = images_to_kspace(images, matrix=(96, 96), coils=4, maps=None, noise=0.02, seed=0, where="x")
    corner = kspace[0, :, :20, :20]
    assert reconstruct(kspace).max() == pytest.approx(1e-3)
    deviations = np.sqrt(np.mean(np.abs(corner) ** 2, axis=(1, 2)) / 2)
    assert np.sqrt(np.mean(deviations**2)) == pytest.approx(0.02e-3, rel=0.1)


def test_matrix_keeps_the_field_of_view(tmp_path: Path) -> None:
    """Half the matrix shows the same object at half the resolution."""
    np.save(tmp_path / "a.npy", head(1))
    volume = read_volume(run(tmp_path / "a.npy", tmp_path, matrix=(32, 24), noise=0.0).volumes[0])
    halved = head(1)[0].reshape(32, 2, 24, 2).mean(axis=(1, 3))
    assert correlation(volume.target[0], halved) > 0.95


def test_proportions_are_kept(tmp_path: Path) -> None:
    """An image of other proportions than the matrix is padded, not stretched."""
    y, x = np.mgrid[-32:32, -20:20]
    np.save(tmp_path / "a.npy", (y**2 + x**2 < 15**2).astype(np.float32)[None])
    volume = read_volume(run(tmp_path / "a.npy", tmp_path, matrix=(32, 32), noise=0.0).volumes[0])
    shown = volume.target[0] > 0.4 * volume.target[0].max()
    height, width = int(shown.any(axis=1).sum()), int(shown.any(axis=0).sum())
    assert abs(height - width) <= 2


@pytest.mark.parametrize("have", [(8, 9), (9, 8)])
@pytest.mark.parametrize("want", [(6, 6), (5, 7), (7, 5)])
def test_crop_of_kspace_keeps_the_zero_frequency(have: tuple[int, int], want: tuple[int, int]) -> None:
    """For even and odd sizes the zero frequency stays where the transform looks for it."""
    kspace = crop_kspace(fft2c(np.ones((1, *have))), want)
    assert np.unravel_index(np.abs(kspace[0]).argmax(), want) == (want[0] // 2, want[1] // 2)
    grown = crop_or_pad(crop_or_pad(np.ones((1, *want), np.float32), (12, 12)), want)
    assert grown.all()


def test_coil_maps_from_a_file(tmp_path: Path) -> None:
    """With maps of a file the coil images are the image times the maps, wherever these were known."""
    y, x = np.mgrid[-1:1:64j, -1:1:48j]
    maps = np.stack([np.exp(-((y - 0.5) ** 2) + 1j * x), np.exp(-((x + 0.5) ** 2) - 2j * y)])
    maps /= np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    np.savez(tmp_path / "maps.npz", maps=maps.astype(np.complex64), image=np.ones((64, 48)))
    np.save(tmp_path / "a.npy", head(1))
    report = run(tmp_path / "a.npy", tmp_path, coil_maps=tmp_path / "maps.npz", noise=0.0)
    volume = read_volume(report.volumes[0])
    assert volume.kspace.shape == (1, 2, 64, 48)
    assert volume.notes["coil_maps"] == "file"
    np.testing.assert_allclose(volume.target[0] / 1e-3, head(1)[0] / head(1).max(), atol=0.01)
    with pytest.raises(ConfigError, match="3 coils are wanted"):
        run(tmp_path / "a.npy", tmp_path, coil_maps=tmp_path / "maps.npz", coils=3)
    with pytest.raises(DataError, match="could be coil maps"):
        run(tmp_path / "a.npy", tmp_path, coil_maps=tmp_path / "a.npy")


def test_maps_are_continued_beyond_the_body() -> None:
    """Maps that are zero outside the body are filled smoothly, and unchanged inside."""
    y, x = np.mgrid[-1:1:60j, -1:1:50j]
    true = np.stack([np.exp(-((y - 0.6) ** 2) + 1j * x), np.exp(-((y + 0.6) ** 2) - 1j * x)])
    true = (true / np.sqrt(np.sum(np.abs(true) ** 2, axis=0))).astype(np.complex64)
    body = y**2 + x**2 < 0.5
    filled = continue_maps(np.where(body, true, 0).astype(np.complex64))
    np.testing.assert_array_equal(filled[:, body], true[:, body])
    rss = np.sqrt(np.sum(np.abs(filled) ** 2, axis=0))
    assert rss.min() > 0.8
    assert np.abs(np.diff(filled, axis=1)).max() < 0.15
    stretched = resample_maps(filled, 120, 100)
    np.testing.assert_allclose(stretched[:, ::2, ::2][:, 5:-5, 5:-5], filled[:, 5:-5, 5:-5], atol=0.03)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"image": head(2), "patient_id": np.array(["a"])}, "patient_id .* has the shape"),
        ({"image": -head(2)}, "empty"),
        ({"image": head(2) - 50}, "negative values"),
        ({"image": np.full((2, 32, 32), np.nan)}, "NaN"),
        ({"a": head(2), "b": head(2)}, "2 arrays"),
        ({"names": np.array(["a"])}, "0 arrays"),
    ],
)
def test_unsuitable_arrays_are_refused(
    tmp_path: Path, arrays: dict[str, npt.NDArray[np.float32]], reason: str
) -> None:
    """An array that cannot be magnitude images is refused by its reason."""
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=reason):
        run(tmp_path / "a.npz", tmp_path)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    """An array of Python objects, whose loading could run code, is refused."""
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        run(tmp_path / "a.npy", tmp_path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.npz", "a.h5", "a.dcm"])
def test_files_that_are_not_what_they_are_called(tmp_path: Path, name: str) -> None:
    """Text under any known ending is refused without another error."""
    (tmp_path / name).write_text("not what it is called")
    with pytest.raises(DataError):
        run(tmp_path / name, tmp_path)


def test_truncated_archive_is_refused(tmp_path: Path) -> None:
    """A .npz whose copying was interrupted is refused, and no file is left open (a warning is an error)."""
    np.savez(tmp_path / "whole.npz", image=head())
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.npz cannot be read"):
        run(tmp_path / "cut.npz", tmp_path)


@pytest.mark.parametrize("destination", [".", "volumes", "../scans"])
def test_nothing_is_imported_into_its_own_source(destination: str, tmp_path: Path) -> None:
    """Every patient would be there twice the next time; nothing is written."""
    scans = tmp_path / "scans"
    scans.mkdir()
    np.save(scans / "a.npy", head())
    with pytest.raises(DataError, match="would be read as well"):
        import_directory(scans, scans / destination, options(tmp_path))
    assert [path.name for path in scans.iterdir()] == ["a.npy"]


def test_sources_without_an_answer(tmp_path: Path) -> None:
    """Nothing, nothing known, and several formats at once are told apart."""
    source = tmp_path / "source"
    with pytest.raises(DataError, match="no file or directory"):
        run(source, tmp_path)
    source.mkdir()
    with pytest.raises(DataError, match="is empty"):
        run(source, tmp_path)
    (source / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="nothing of a known format"):
        run(source, tmp_path)
    np.save(source / "a.npy", head())
    nib.save(nib.Nifti1Image(head(), np.eye(4)), source / "b.nii")
    with pytest.raises(DataError, match="several formats: images, nifti"):
        run(source, tmp_path)
    assert run(source, tmp_path, kind="images").kind == "images"


def test_matrix_larger_than_the_image_is_refused(tmp_path: Path) -> None:
    """Resolution that is not there is not made up."""
    np.save(tmp_path / "a.npy", head())
    with pytest.raises(DataError, match="fewer than the matrix"):
        run(tmp_path / "a.npy", tmp_path, matrix=(128, 128))


@pytest.mark.parametrize(
    "wrong",
    [
        {"acquisition": "T2"},
        {"coils": 0},
        {"coils": 17},
        {"noise": -1.0},
        {"noise": float("nan")},
        {"slices": (3, 3)},
        {"slabs": 0},
        {"matrix": (4, 64)},
        {"organ": "elbow"},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    """An option out of its range is refused before anything is read."""
    with pytest.raises(ConfigError):
        ImportOptions(**{"organ": "brain", **wrong})  # type: ignore[arg-type]


def test_progress_counts_examinations(tmp_path: Path) -> None:
    """Progress goes from nothing to all."""
    np.savez(tmp_path / "a.npz", image=head(2), patient_id=np.array(["a", "b"]))
    calls: list[tuple[int, int]] = []
    import_directory(
        tmp_path / "a.npz",
        tmp_path / "out",
        options(tmp_path),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(0, 2), (1, 2), (2, 2)]
    assert len(list_volumes(tmp_path / "out")) == 2
    with h5py.File(list_volumes(tmp_path / "out")[0]) as file:
        assert file.attrs["reconsent_provenance"] == "retrospective"


def test_kspace_cannot_be_made_without_the_key(tmp_path: Path) -> None:
    """Coils, phase and noise follow from the key: another key gives other k-space, the same key the same."""
    np.savez(tmp_path / "a.npz", image=head(), patient_id=["4711"] * 3)
    volumes = []
    for place, key in (("a", "one"), ("b", "one"), ("c", "two")):
        chosen = ImportOptions(organ="brain", key_file=tmp_path / key)
        report = import_directory(tmp_path / "a.npz", tmp_path / place, chosen)
        volumes.append(read_volume(report.volumes[0]))
    first, same, other = volumes
    np.testing.assert_array_equal(first.kspace, same.kspace)
    assert first.patient == same.patient != other.patient
    assert not np.allclose(first.kspace, other.kspace, rtol=1e-2, atol=0)


def test_messages_number_the_examinations(tmp_path: Path) -> None:
    """Problems and remarks do not name patients, unless identifiers are kept."""
    images = np.concatenate([head(), np.full((1, 64, 48), np.nan, dtype=np.float32)])
    images[1] = 0
    np.savez(tmp_path / "a.npz", image=images, patient_id=["Jane"] * 3 + ["Joan"])
    report = run(tmp_path / "a.npz", tmp_path)
    text = str(report.problems) + str(report.remarks)
    assert "examination 1 of a.npz" in text
    assert "examination 2 of a.npz" in text
    assert "Jane" not in text
    assert "Joan" not in text
    kept = run(tmp_path / "a.npz", tmp_path / "kept", keep_identifiers=True)
    assert "Jane" in str(kept.remarks)
    assert "Joan" in str(kept.problems)
