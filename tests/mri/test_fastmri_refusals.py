"""Malformed files: each is refused by its name, with a reason and a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mri.fastmri_file import read_header, read_volume, write_volume
from mri.phantoms import synthesise_volume
from reconsent.config import PhantomConfig
from reconsent.errors import DataError

Damage = Callable[[h5py.File], None]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "a.h5"
    config = PhantomConfig(matrix=(32, 36), slices=2, coils=2)
    write_volume(path, synthesise_volume("knee", config, seed=0, name="a"))
    return path.read_bytes()


def replace(name: str, value: object) -> Damage:
    def damage(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return damage


def change(name: str, place: object, value: object) -> Damage:
    def damage(file: h5py.File) -> None:
        file[name][place] = value

    return damage


def edit_header(old: bytes, new: bytes) -> Damage:
    def damage(file: h5py.File) -> None:
        document = bytes(file["ismrmrd_header"][()])
        assert old in document
        replace("ismrmrd_header", document.replace(old, new))(file)

    return damage


def undersample(file: h5py.File) -> None:
    for column in range(0, 36, 3):
        file["kspace"][:, :, :, column] = 0


def scatter(file: h5py.File) -> None:
    keep = np.random.default_rng(0).random((32, 36)) < 0.5
    file["kspace"][...] = file["kspace"][()] * keep


def shift(file: h5py.File) -> None:
    file["kspace"][...] = np.fft.fftshift(file["kspace"][()], axes=(2, 3))


def shift_image(file: h5py.File) -> None:
    # What a transform that forgets to centre the image does: it alternates the sign of k-space.
    file["kspace"][...] = file["kspace"][()] * (-1.0) ** np.add.outer(np.arange(32), np.arange(36))


def make_group(file: h5py.File) -> None:
    del file["kspace"]
    file.create_group("kspace")


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no kspace": (replace("kspace", None), "no dataset 'kspace'"),
    "kspace is a group": (make_group, "no dataset 'kspace'"),
    "five dimensions": (replace("kspace", np.ones((1, 2, 2, 32, 36), np.complex64)), "has the shape"),
    "no slices": (replace("kspace", np.ones((0, 2, 32, 36), np.complex64)), "has the shape"),
    "real numbers": (replace("kspace", np.ones((2, 2, 32, 36), np.float32)), "stored as float32"),
    "NaN": (change("kspace", (1, 0, 3, 3), np.nan), "Slice 1 .* NaN or infinite"),
    "infinity": (change("kspace", (0, 0, 3, 3), np.inf), "Slice 0 .* NaN or infinite"),
    "empty slice": (change("kspace", (1,), 0), "Slice 1 .* all zeros"),
    "empty coil": (change("kspace", (0, 1), 0), "Coil 1 of slice 0 .* all zeros"),
    "undersampled columns": (undersample, "undersampled: 1[12] of 3[56] phase encodes"),
    "undersampled points": (scatter, "undersampled: 5.% of the samples"),
    "not centred": (shift, "is not centred: its largest sample is at row"),
    "image not centred": (shift_image, "does not look like the root sum of squares"),
    "absurdly large": (change("kspace", (0, 0, 3, 3), 1e30), "largest sample of slice 0 .* is 1.0e\\+30"),
    "other slices": (change("reconstruction_rss", (slice(None),), np.eye(32, 36)), "does not look like"),
    "fewer targets": (replace("reconstruction_rss", np.ones((1, 32, 36), np.float32)), "has the shape"),
    "flat target": (replace("reconstruction_rss", np.ones(3, np.float32)), "has the shape"),
    "NaN in target": (change("reconstruction_rss", (0, 0, 0), np.nan), "holds NaN"),
    "negative target": (change("reconstruction_rss", (0, 0, 0), -1), "negative"),
    "dark target": (change("reconstruction_rss", (0,), 0), "Slice 0 of the reconstruction_rss"),
    "other truth": (replace("truth", np.ones((2, 3, 3), np.float32)), "truth .* has the shape"),
    "no header": (replace("ismrmrd_header", None), "no dataset 'ismrmrd_header'"),
    "numbers as header": (replace("ismrmrd_header", np.ones(3)), "not as text"),
    "text as header": (replace("ismrmrd_header", b"matrix: 32x36"), "is not XML"),
    "other header": (replace("ismrmrd_header", b"<a/>"), "has no encoding/encodedSpace/matrixSize/y"),
    "entities": (replace("ismrmrd_header", b"<!DOCTYPE a><a/>"), "declares XML entities"),
    "wordy header": (edit_header(b"<y>36</y>", b"<y>many</y>"), "'many' as encoding"),
    "other rows": (edit_header(b"<x>32</x>", b"<x>33</x>"), "33 rows .* but it has 32 and 36"),
    "other padding": (edit_header(b"<center>18</center>", b"<center>30</center>"), "-12 to 23"),
    "empty image": (edit_header(b"<y>36</y>", b"<y>0</y>"), "0 columns"),
    "provenance": (lambda file: file.attrs.update(reconsent_provenance="x"), "provenance 'x'"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_malformed_file_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    """The message names the file and the reason, and there is a remedy."""
    damage, reason = DAMAGES[name]
    path = tmp_path / "b.h5"
    path.write_bytes(content)
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(DataError, match=reason) as caught:
        read_volume(path)
    assert str(path) in caught.value.problem
    assert caught.value.remedy.endswith(".")


def test_undamaged_file_is_accepted(content: bytes, tmp_path: Path) -> None:
    """The file that the damages start from is a good one."""
    path = tmp_path / "b.h5"
    path.write_bytes(content)
    assert read_volume(path).kspace.shape == (2, 2, 32, 36)


def test_no_file_empty_file_and_other_formats(tmp_path: Path) -> None:
    """A missing file, an empty one, and one that is no HDF5 file are told apart."""
    with pytest.raises(DataError, match="There is no file"):
        read_header(tmp_path / "missing.h5")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(DataError, match=r"empty\.h5 is empty"):
        read_header(tmp_path / "empty.h5")
    (tmp_path / "text.h5").write_text("patient,age\n")
    with pytest.raises(DataError, match=r"text\.h5 is not an HDF5 file"):
        read_header(tmp_path / "text.h5")


def test_truncated_file_is_cut_short(content: bytes, tmp_path: Path) -> None:
    """A copy that was interrupted says so."""
    path = tmp_path / "b.h5"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="is cut short"):
        read_volume(path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_no_truncated_file_is_read(content: bytes, tmp_path: Path, share: float) -> None:
    """Wherever a copy was interrupted, the file is refused."""
    path = tmp_path / "b.h5"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_volume(path)


@pytest.mark.parametrize("fill", [b"\x00", b"\xff"])
def test_damaged_sectors_never_escape_as_another_error(content: bytes, tmp_path: Path, fill: bytes) -> None:
    """A file with any one sector lost is read or refused; nothing else escapes."""
    path = tmp_path / "b.h5"
    refused = 0
    # HDF5's heap of texts is left alone: the library itself can hang on a damaged one.
    heap = content.index(b"GCOL")
    for start in range(0, len(content), 512):
        if heap - 512 < start < heap + 4096:
            continue
        path.write_bytes(content[:start] + 512 * fill + content[start + 512 :])
        try:
            read_volume(path)
        except DataError as error:
            assert str(path) in error.problem
            refused += 1
    assert refused > 5
