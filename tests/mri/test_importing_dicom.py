"""Import of DICOM series: slices in their order, nothing of the patient left, what is odd refused by name."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from mri.fastmri_file import read_volume
from mri.importing import ImportOptions, import_directory
from reconsent.errors import DataError
from tests.mri.importing_source import correlation, head, run


def write_dicom(path: Path, pixels: npt.NDArray[np.uint16], number: int, **fields: object) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    image.Modality, image.PatientName, image.PatientID = "MR", "Doe^Jane", "4711"
    image.PatientBirthDate, image.StudyDate, image.InstitutionName = "19700101", "20240229", "St Elsewhere"
    image.SeriesInstanceUID, image.SeriesNumber = "1.2.3", 5
    image.InstanceNumber = 100 - number
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.ImagePositionPatient = [0, 0, 5.0 * number]
    image.PixelSpacing, image.SliceThickness = [1.5, 2.0], 5.0
    image.EchoTime, image.RepetitionTime, image.MagneticFieldStrength = 12.0, 600.0, 1.5
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.PixelData = pixels.tobytes()
    image.add_new(pydicom.tag.Tag(0x0009, 0x0010), "LO", "PRIVATE DOE")
    for name, value in fields.items():
        setattr(image, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    for number, image in enumerate(head()):
        # File names and instance numbers run against the position.
        write_dicom(tmp_path / "dicom" / f"{9 - number}.dcm", image.astype(np.uint16), number)
    (tmp_path / "dicom" / "README.txt").write_text("no image")
    return tmp_path / "dicom"


def test_dicom_slices_are_in_order_of_position(dicom: Path, tmp_path: Path) -> None:
    """Slices are sorted along the normal of their plane, whatever files and instances are called."""
    report = run(dicom, tmp_path, noise=0.0)
    volume = read_volume(report.volumes[0])
    for found, image in zip(volume.target, head(), strict=True):
        assert correlation(found, image) > 0.95
    others = [correlation(volume.target[0], image) for image in head()]
    assert int(np.argmax(others)) == 0
    assert (report.kind, report.provenance, report.slices) == ("dicom", "retrospective", 3)
    assert volume.notes["echo_time_ms"] == 12.0
    assert volume.notes["pixel_columns_mm"] == 2.0


def test_nothing_of_the_patient_is_left(dicom: Path, tmp_path: Path) -> None:
    """No name, date, identifier or UID of the source is anywhere in the volume's bytes or name."""
    report = run(dicom, tmp_path)
    (path,) = report.volumes
    content = path.read_bytes() + path.name.encode()
    for secret in (b"Doe", b"4711", b"1970", b"20240229", b"Elsewhere", b"1.2.3", b"PRIVATE", b"dicom/"):
        assert secret not in content, secret
    assert {"PatientName", "PatientBirthDate", "StudyDate", "InstitutionName"} <= set(report.dropped)
    assert "private elements" in report.dropped
    assert "Doe" not in str(report)


def test_pseudonym_needs_the_key(dicom: Path, tmp_path: Path) -> None:
    """One key always gives a patient the same pseudonym, another key another; only its owner may read it."""
    first = run(dicom, tmp_path)
    assert first.patients[0].startswith("p-")
    assert run(dicom, tmp_path).patients == first.patients
    assert first.key_file is not None
    assert stat.S_IMODE(first.key_file.stat().st_mode) == 0o600
    assert len(first.key_file.read_bytes()) == 32
    (tmp_path / "other").mkdir()
    assert run(dicom, tmp_path / "other").patients != first.patients


def test_key_never_lies_beside_the_volumes(dicom: Path, tmp_path: Path) -> None:
    """A key within the directory that is given away is refused, and nothing is written."""
    with pytest.raises(DataError, match="beside the volumes"):
        import_directory(
            dicom, tmp_path / "out", ImportOptions(organ="brain", key_file=tmp_path / "out" / "key")
        )
    assert not (tmp_path / "out").exists()


def test_identifiers_are_kept_only_when_asked(dicom: Path, tmp_path: Path) -> None:
    """With keep_identifiers the patient is the source's, and there is no key."""
    report = run(dicom, tmp_path, keep_identifiers=True)
    assert report.patients == ("4711",)
    assert report.key_file is None
    assert not (tmp_path / "secret").exists()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"Modality": "CT"}, "modality CT"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, "phase images"),
        ({"BurnedInAnnotation": "YES"}, "burned into"),
        ({"Rows": 32, "PixelData": bytes(2 * 32 * 48)}, "differ in size: 32x48, 64x48"),
        ({"PixelData": bytes(17)}, "pixels of .* cannot be read"),
    ],
)
def test_unsuitable_series_are_refused(
    dicom: Path, tmp_path: Path, fields: dict[str, object], reason: str
) -> None:
    """Other modalities, phase images, burned-in text and broken files are refused by their reason."""
    write_dicom(dicom / "x.dcm", head()[0].astype(np.uint16), 7, **fields)
    with pytest.raises(DataError, match=reason):
        run(dicom, tmp_path)


def test_bad_series_does_not_stop_the_others(dicom: Path, tmp_path: Path) -> None:
    """What can be imported is, and the rest is reported."""
    write_dicom(dicom / "b" / "x.dcm", head()[0].astype(np.uint16), 0, SeriesInstanceUID="9", Modality="CT")
    report = run(dicom, tmp_path)
    assert len(report.volumes) == 1
    assert "modality CT" in report.problems[0].reason


@pytest.mark.parametrize(
    "fields",
    [
        {"EchoTime": [12.0, 24.0]},
        {"SamplesPerPixel": None},
        {"ImageOrientationPatient": [1, 0, 0]},
        {"PixelSpacing": 1.5},
    ],
)
def test_odd_dicom_is_named(dicom: Path, tmp_path: Path, fields: dict[str, object]) -> None:
    """A file whose attributes break the standard is refused by name; the other series are imported."""
    write_dicom(
        tmp_path / "dicom" / "odd.dcm", head()[0].astype(np.uint16), 0, SeriesInstanceUID="9", **fields
    )
    report = run(dicom, tmp_path)
    (problem,) = report.problems
    assert "odd.dcm" in problem.reason
    assert problem.remedy
    assert len(report.volumes) == 1
