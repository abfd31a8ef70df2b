"""Import of k-space: ISMRMRD raw data, complex arrays and fastMRI files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import numpy.typing as npt
import pytest
from ismrmrd import xsd

from mri.fastmri_file import read_volume, write_volume
from mri.fourier import fft2c, ifft2c, reconstruct
from mri.importing import ImportOptions, ImportReport, import_directory
from mri.phantoms import synthesise_volume
from mri.volume_checks import centre_crop
from reconsent.config import PhantomConfig
from reconsent.errors import DataError

Kspace = npt.NDArray[np.complex64]
ROWS, COLUMNS = 48, 32


@pytest.fixture(scope="module")
def kspace() -> Kspace:
    config = PhantomConfig(matrix=(ROWS, COLUMNS), slices=2, coils=3)
    return synthesise_volume("knee", config, seed=3, name="k").kspace


def run(source: Path, tmp_path: Path, **changes: object) -> ImportReport:
    options = ImportOptions(organ="knee", key_file=tmp_path / "secret" / "key", **changes)  # type: ignore[arg-type]
    return import_directory(source, tmp_path / "out", options)


def header(**changes: Any) -> xsd.ismrmrdHeader:
    def space(rows: int, columns: int, partitions: int = 1) -> xsd.encodingSpaceType:
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=rows, y=columns, z=partitions),
            fieldOfView_mm=xsd.fieldOfViewMm(x=2.0 * rows, y=2.0 * columns, z=4.0),
        )

    first = changes.pop("first", 0)
    return xsd.ismrmrdHeader(
        subjectInformation=xsd.subjectInformationType(patientName="Doe^Jane", patientID="4711"),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemFieldStrength_T=1.5, institutionName="St Elsewhere"
        ),
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=63_870_000),
        encoding=[
            xsd.encodingType(
                encodedSpace=space(ROWS, COLUMNS, changes.get("partitions", 1)),
                reconSpace=space(ROWS // 2, COLUMNS),
                encodingLimits=xsd.encodingLimitsType(
                    kspace_encoding_step_1=xsd.limitType(
                        minimum=0, maximum=COLUMNS - 1 - first, center=COLUMNS // 2 - first
                    )
                ),
                trajectory=xsd.trajectoryType(changes.get("trajectory", "cartesian")),
            )
        ],
        sequenceParameters=xsd.sequenceParametersType(TR=[500.0], TE=[9.0]),
    )


def write_raw(
    path: Path,
    kspace: Kspace,
    *,
    first: int = 0,
    early: int = 0,
    averages: int = 1,
    change: Callable[[ismrmrd.Acquisition], None] | None = None,
    **changes: Any,
) -> None:
    """Readouts of a k-space in a random order, as a scanner with noise scans and averages stores them."""
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(header(first=first, **changes).toXML(encoding="ascii"))
        noise = ismrmrd.Acquisition.from_array(np.ones((3, 128), np.complex64) * 1e3)
        noise.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        dataset.append_acquisition(noise)
        lines = [
            (s, c, a) for s in range(len(kspace)) for c in range(first, COLUMNS) for a in range(averages)
        ]
        for place in np.random.default_rng(0).permutation(len(lines)):
            slice_, column, average = lines[place]
            line = ismrmrd.Acquisition.from_array(kspace[slice_, :, early:, column] * (1 + average))
            line.center_sample = ROWS // 2 - early
            line.idx.slice, line.idx.kspace_encode_step_1, line.idx.average = slice_, column - first, average
            if change is not None:
                change(line)
            dataset.append_acquisition(line)


def test_raw_data_become_the_scanners_kspace(kspace: Kspace, tmp_path: Path) -> None:
    """Readouts in any order give the k-space, without noise scans; the readout's border is cropped."""
    write_raw(tmp_path / "meas.h5", kspace)
    report = run(tmp_path / "meas.h5", tmp_path, acquisition="CORPDFS_FBK")
    volume = read_volume(report.volumes[0])
    np.testing.assert_array_equal(volume.kspace, kspace)
    np.testing.assert_allclose(
        volume.target, centre_crop(reconstruct(kspace), (ROWS // 2, COLUMNS)), rtol=1e-5
    )
    assert (volume.provenance, volume.padding) == ("acquired", (0, COLUMNS))
    assert volume.acquisition == "CORPDFS_FBK"
    assert (volume.notes["field_strength_tesla"], volume.notes["pixel_rows_mm"]) == (1.5, 2.0)
    content = report.volumes[0].read_bytes()
    assert not any(secret in content for secret in (b"Doe", b"4711", b"Elsewhere"))
    assert {"subjectInformation/patientName", "acquisitionSystemInformation/institutionName"} <= set(
        report.dropped
    )


def test_averages_partial_fourier_and_early_echo(kspace: Kspace, tmp_path: Path) -> None:
    """Averages are averaged; phase encodes and samples that were not acquired stay zero, and are told."""
    write_raw(tmp_path / "meas.h5", kspace, first=5, early=8, averages=2)
    volume = read_volume(run(tmp_path / "meas.h5", tmp_path).volumes[0])
    assert volume.padding == (5, COLUMNS)
    assert not volume.kspace[..., :5].any()
    assert not volume.kspace[:, :, :8].any()
    np.testing.assert_allclose(volume.kspace[:, :, 8:, 5:], 1.5 * kspace[:, :, 8:, 5:], rtol=1e-6)


def test_further_contrasts_are_left_out_and_told(kspace: Kspace, tmp_path: Path) -> None:
    """Of several repetitions the first is taken, and a remark says so."""

    def repeat(line: ismrmrd.Acquisition) -> None:
        line.idx.repetition = line.idx.average

    write_raw(tmp_path / "meas.h5", kspace, averages=2, change=repeat)
    report = run(tmp_path / "meas.h5", tmp_path)
    np.testing.assert_array_equal(read_volume(report.volumes[0]).kspace, kspace)
    assert f"{2 * COLUMNS} readouts of further contrasts" in report.remarks[0]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"trajectory": "radial"}, "radial trajectory, not a Cartesian one"),
        ({"trajectory": "epi"}, "epi trajectory"),
        ({"partitions": 8}, "three-dimensional acquisition"),
        ({"change": lambda line: line.set_flag(ismrmrd.ACQ_IS_REVERSE)}, "alternating directions"),
        ({"change": lambda line: line.set_flag(ismrmrd.ACQ_IS_NAVIGATION_DATA)}, "no imaging readouts"),
        ({"change": lambda line: setattr(line, "center_sample", 40)}, "does not fit 48 rows"),
        ({"change": lambda line: setattr(line.idx, "kspace_encode_step_1", 99)}, "phase encode 99 of 32"),
    ],
)
def test_unsuitable_raw_data_are_refused(
    kspace: Kspace, tmp_path: Path, arguments: dict[str, Any], reason: str
) -> None:
    """Raw data that are no two-dimensional Cartesian k-space are refused in clear words."""
    write_raw(tmp_path / "meas.h5", kspace, **arguments)
    with pytest.raises(DataError, match=reason) as caught:
        run(tmp_path / "meas.h5", tmp_path)
    assert caught.value.remedy


def test_invalid_raw_header_is_refused(kspace: Kspace, tmp_path: Path) -> None:
    """A raw header that the schema does not allow is refused."""
    write_raw(tmp_path / "meas.h5", kspace)
    with h5py.File(tmp_path / "meas.h5", "a") as file:
        file["dataset/xml"][0] = b"<no/>"
    with pytest.raises(DataError, match=r"header of .* is invalid"):
        run(tmp_path / "meas.h5", tmp_path)


def test_complex_arrays(kspace: Kspace, tmp_path: Path) -> None:
    """An array of one slice, or of several, is the k-space as it is, and counts as acquired."""
    np.save(tmp_path / "one.npy", kspace[0].astype(np.complex128))
    np.save(tmp_path / "two.npy", kspace)
    one, two = (read_volume(run(tmp_path / name, tmp_path).volumes[0]) for name in ("one.npy", "two.npy"))
    np.testing.assert_array_equal(one.kspace, kspace[:1])
    np.testing.assert_array_equal(two.kspace, kspace)
    assert (one.provenance, one.acquisition) == ("acquired", "CORPD_FBK")
    assert one.patient != two.patient


def test_order_in_memory_does_not_matter(kspace: Kspace, tmp_path: Path) -> None:
    """An array saved from Fortran or MATLAB order is imported as one in C order."""
    np.save(tmp_path / "patient-7.npy", np.asfortranarray(kspace))
    imported = read_volume(run(tmp_path / "patient-7.npy", tmp_path).volumes[0])
    np.testing.assert_array_equal(imported.kspace, kspace)


def test_matrix_lowers_the_resolution(kspace: Kspace, tmp_path: Path) -> None:
    """The matrix keeps the centre of k-space; more than there is cannot be had."""
    np.save(tmp_path / "k.npy", kspace)
    volume = read_volume(run(tmp_path / "k.npy", tmp_path, matrix=(32, 24)).volumes[0])
    np.testing.assert_array_equal(volume.kspace, kspace[:, :, 8:40, 4:28])
    assert volume.target.shape == (2, 32, 24)
    with pytest.raises(DataError, match="fewer than the matrix"):
        run(tmp_path / "k.npy", tmp_path, matrix=(64, 64))


def test_undersampled_kspace_is_refused_with_advice(kspace: Kspace, tmp_path: Path) -> None:
    """K-space with gaps is no reference; the message says so, and what its coils can still serve for."""
    mask = np.random.default_rng(0).random((ROWS, COLUMNS)) < 0.1
    mask[16:32, 8:24] = True
    np.save(tmp_path / "points.npy", kspace * mask)
    lines = np.zeros(COLUMNS, dtype=bool)
    lines[::2] = lines[12:20] = True
    np.save(tmp_path / "lines.npy", kspace * lines)
    for name, reason in (("points.npy", "% of the samples"), ("lines.npy", "phase encodes")):
        with pytest.raises(DataError, match=f"undersampled: .*{reason}") as caught:
            run(tmp_path / name, tmp_path)
        assert "--coil-maps" in caught.value.remedy


def test_uncentred_kspace_is_refused(kspace: Kspace, tmp_path: Path) -> None:
    """K-space with its zero frequency in the corner is refused, with what to do."""
    np.save(tmp_path / "k.npy", np.fft.ifftshift(kspace, axes=(2, 3)))
    with pytest.raises(DataError, match="not centred") as caught:
        run(tmp_path / "k.npy", tmp_path)
    assert "fftshift" in caught.value.remedy


def test_fastmri_files_are_mended_and_pseudonymised(kspace: Kspace, tmp_path: Path) -> None:
    """A fastMRI file that is refused for an empty coil and slice is taken without them, and without names."""
    config = PhantomConfig(matrix=(ROWS, COLUMNS), slices=3, coils=3)
    good = synthesise_volume("knee", config, seed=3, name="k")
    source = tmp_path / "file_doe.h5"
    write_volume(source, good)
    with h5py.File(source, "a") as file:
        file["kspace"][1] = 0
        file["kspace"][:, 2] = 0
        file.attrs["patient_id"] = "doe"
    with pytest.raises(DataError, match="--drop-empty"):
        read_volume(source)
    with pytest.raises(DataError, match="--drop-empty"):
        run(source, tmp_path)
    report = run(source, tmp_path, drop_empty=True)
    volume = read_volume(report.volumes[0])
    np.testing.assert_array_equal(volume.kspace, good.kspace[[0, 2]][:, :2])
    np.testing.assert_allclose(
        volume.target, np.sqrt(np.sum(np.abs(ifft2c(volume.kspace)) ** 2, axis=1)), rtol=1e-5
    )
    assert volume.provenance == "phantom"
    assert b"doe" not in report.volumes[0].read_bytes()
    assert "patient_id" in report.dropped
    assert len(report.remarks) == 2


def test_import_of_an_import_is_the_same(kspace: Kspace, tmp_path: Path) -> None:
    """Importing a volume once more changes its names, but not its numbers."""
    np.save(tmp_path / "k.npy", kspace)
    first = run(tmp_path / "k.npy", tmp_path)
    again = import_directory(
        tmp_path / "out",
        tmp_path / "again",
        ImportOptions(organ="knee", key_file=tmp_path / "secret" / "key"),
    )
    one, other = read_volume(first.volumes[0]), read_volume(again.volumes[0])
    np.testing.assert_array_equal(one.kspace, other.kspace)
    np.testing.assert_array_equal(one.target, other.target)
    assert one.patient != other.patient
    np.testing.assert_allclose(fft2c(ifft2c(one.kspace)), one.kspace, atol=1e-8)
