"""Directories of volumes: listing, checking, and filling with phantoms."""

from __future__ import annotations

import dataclasses
import multiprocessing
import shutil
from pathlib import Path

import pytest
from fastmri.data.mri_data import SliceDataset

from mri.directory import check_directory, list_volumes
from mri.fastmri_file import read_volume, write_volume
from mri.site_data import synthesise_directory
from reconsent.config import PhantomConfig
from reconsent.errors import DataError

CONFIG = PhantomConfig(patients=3, matrix=(32, 40), slices=2, coils=2)


def synthesise(directory: Path, config: PhantomConfig = CONFIG, seed: int = 0) -> list[Path]:
    return synthesise_directory(directory, "heart", config, seed=seed, prefix="h")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site") / "hearts"
    synthesise(directory)
    return directory


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made.parent, tmp_path / "copy")
    return tmp_path / "copy" / "hearts"


def test_only_volumes_are_listed(directory: Path) -> None:
    """Files that systems leave behind, half-written ones and directories are no volumes."""
    for name in (".DS_Store", "._h-000.h5", ".h-000.h5.17.part", "notes.txt"):
        (directory / name).write_bytes(b"x")
    (directory / "more.h5").mkdir()
    assert [path.name for path in list_volumes(directory)] == ["h-000.h5", "h-001.h5", "h-002.h5"]
    report = check_directory(directory)
    assert report.trainable
    assert report.ignored == ("more.h5", "notes.txt")


def test_report_counts(directory: Path) -> None:
    """The report counts patients, slices, coils, matrices, organs and provenances."""
    calls: list[tuple[int, int]] = []
    report = check_directory(directory, progress=lambda done, total: calls.append((done, total)))
    assert report.patients == {"h-000": 1, "h-001": 1, "h-002": 1}
    assert (report.slices, report.coils, report.matrices) == (6, {2: 3}, {(32, 40): 3})
    assert (report.organs, report.provenances) == ({"heart": 3}, {"phantom": 3})
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_every_problem_is_reported(directory: Path) -> None:
    """Bad files do not hide each other, and the good one is still counted."""
    (directory / "h-000.h5").write_bytes(b"")
    (directory / "h-002.h5").write_text("no volume")
    report = check_directory(directory)
    assert not report.trainable
    assert [problem.name for problem in report.problems] == ["h-000.h5", "h-002.h5", "hearts"]
    assert "1 patient;" in report.problems[-1].reason
    assert report.patients == {"h-001": 1}


def test_same_kspace_of_two_patients_is_a_problem(directory: Path) -> None:
    """A copy under another patient's name would leak from training into testing."""
    copied = read_volume(directory / "h-000.h5")
    write_volume(directory / "z.h5", copied)
    assert check_directory(directory).trainable
    write_volume(directory / "z.h5", dataclasses.replace(copied, patient="another"))
    (problem,) = check_directory(directory).problems
    assert problem.name == "z.h5"
    assert "h-000.h5" in problem.reason


def test_missing_directory_is_named(tmp_path: Path) -> None:
    """A directory that is not there, or is a file, is an error with its path."""
    with pytest.raises(DataError, match="nowhere does not exist"):
        list_volumes(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is a file, and no directory"):
        list_volumes(tmp_path / "file")


def test_fastmri_reads_a_phantom_directory(made: Path) -> None:
    """fastMRI's SliceDataset, which opens every entry of a directory, takes it as it is."""
    assert len(SliceDataset(made, "multicoil")) == 6


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.iterdir()}


def test_second_call_changes_nothing(directory: Path) -> None:
    """Phantoms of the same parameters are left alone, to the modification time."""
    before = contents(directory)
    assert synthesise(directory) == list_volumes(directory.resolve())
    assert contents(directory) == before


def test_half_written_directory_is_completed(directory: Path) -> None:
    """A missing phantom is made again as it was; the others stay."""
    before = contents(directory)
    (directory / "h-001.h5").unlink()
    synthesise(directory)
    after = contents(directory)
    assert {name: data for name, (_, data) in after.items()} == {n: data for n, (_, data) in before.items()}
    assert after["h-000.h5"] == before["h-000.h5"]


@pytest.mark.parametrize("change", [{"noise": 0.1}, {"patients": 2}, {"coils": 3}])
def test_other_parameters_replace_the_phantoms(directory: Path, change: dict[str, float]) -> None:
    """A directory never mixes phantoms of different parameters."""
    before = contents(directory)
    config = CONFIG.model_copy(update=change)
    synthesise(directory, config)
    after = contents(directory)
    assert len(after) == config.patients
    assert after["h-000.h5"][0] != before["h-000.h5"][0]
    assert synthesise(directory, config) == list_volumes(directory.resolve())


def test_foreign_volumes_are_never_deleted(directory: Path, tmp_path: Path) -> None:
    """A directory with data of another origin is refused, whether or not phantoms are beside it."""
    shutil.copy(directory / "h-000.h5", directory / "patient.h5")
    other = CONFIG.model_copy(update={"noise": 0.2})
    for config in (CONFIG, other):
        with pytest.raises(DataError, match=r"patient\.h5"):
            synthesise(directory, config)
    (tmp_path / "own").mkdir()
    shutil.copy(directory / "h-000.h5", tmp_path / "own" / "h-000.h5")
    with pytest.raises(DataError, match="no phantoms made here"):
        synthesise(tmp_path / "own")
    assert (directory / "patient.h5").exists()
    assert (tmp_path / "own" / "h-000.h5").exists()


def test_unwritable_place_is_a_data_error(tmp_path: Path) -> None:
    """A place where nothing can be made is named."""
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        synthesise(tmp_path / "file" / "below")


def test_processes_at_once_agree(made: Path, tmp_path: Path) -> None:
    """Processes that fill one directory together leave what one of them would."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=synthesise, args=(tmp_path / "hearts",)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    there = {path.name: path.read_bytes() for path in (tmp_path / "hearts").iterdir()}
    assert there == {path.name: path.read_bytes() for path in made.iterdir()}
