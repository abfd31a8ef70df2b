"""Foreign data in, fastMRI volumes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mri.directory import Problem
from mri.fastmri_file import read_volume, write_volume
from mri.importing.coil_maps import load_coil_maps
from mri.importing.conversion import make_volume, refine_kspace, scan_images
from mri.importing.examination import Examination, MagnitudeImages
from mri.importing.options import ImportOptions, ImportReport
from mri.importing.pseudonyms import OpenIdentifiers, Pseudonymiser, default_key_file
from mri.importing.slices import choose_slabs
from mri.importing.sources import find_examinations
from mri.volume import Volume
from reconsent.errors import DataError
from reconsent.seeds import derive_seed

Names = Pseudonymiser | OpenIdentifiers
Maps = npt.NDArray[np.complex64]


def import_directory(
    source: Path,
    destination: Path,
    options: ImportOptions,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Import every examination of a file or directory.

    Magnitude images become *retrospective* k-space; k-space stays what it is. Patients get keyed
    pseudonyms, and names, dates and identifiers stay behind, unless ``options.keep_identifiers``.
    Importing the same source again with the same options changes nothing.

    Parameters
    ----------
    source
        File, or directory that is searched with those below it.
    destination
        Directory of the volumes; made if it does not exist.
    options
        What to do.
    progress
        Called with the number of examinations done and the number of all.

    Returns
    -------
    ImportReport
        Also of the examinations that could not be imported.

    Raises
    ------
    DataError
        If the destination lies in the source, or if nothing could be imported; the message gives the reason
        for the first examination.
    ConfigError
        If there are fewer coil maps than coils wanted.
    """
    if destination.resolve().is_relative_to(source.resolve()):
        raise DataError(
            f"{destination} lies in {source}: what is written there would be read as well.",
            "Choose another directory for the volumes, outside of the source.",
        )
    kind, examinations, problems = find_examinations(source, options)
    if not examinations and problems:
        raise _nothing_imported(source, problems)
    examinations = _chosen(examinations, options, source)
    names: Names = (
        OpenIdentifiers()
        if options.keep_identifiers
        else Pseudonymiser(options.key_file or default_key_file(), forbidden=destination)
    )
    maps = None if options.coil_maps is None else load_coil_maps(options.coil_maps, options.coils)
    written: dict[Path, Volume] = {}
    remarks: list[str] = []
    for count, examination in enumerate(examinations):
        if progress is not None:
            progress(count, len(examinations))
        try:
            for volume in _volumes_of(examination, kind, options, names, maps, remarks):
                path = destination / f"{volume.name}.h5"
                _write(path, volume, overwrite=options.overwrite)
                written[path] = replace(volume, kspace=volume.kspace[:0], target=volume.target[:, :0])
        except DataError as error:
            problems.append(Problem(_shown(examination, options), error.problem, error.remedy))
        except OSError as error:
            raise DataError(
                f"Volumes cannot be written to {destination}: {error}.",
                "Choose a directory that is writable and has room; what was written so far is complete.",
            ) from None
    if progress is not None:
        progress(len(examinations), len(examinations))
    if not written:
        raise _nothing_imported(source, problems)
    dropped = {name for examination in examinations for name in examination.dropped}
    return ImportReport(
        destination=destination,
        kind=kind,
        volumes=tuple(sorted(written)),
        patients=tuple(sorted({volume.patient for volume in written.values()})),
        slices=sum(len(volume.target) for volume in written.values()),
        provenance=", ".join(sorted({str(volume.provenance) for volume in written.values()})),
        dropped=() if options.keep_identifiers else tuple(sorted(dropped)),
        key_file=names.key_file,
        problems=tuple(problems),
        remarks=tuple(remarks),
    )


def _chosen(examinations: list[Examination], options: ImportOptions, source: Path) -> list[Examination]:
    there = sorted({examination.patient for examination in examinations})
    missing = sorted(set(options.patients) - set(there))
    if missing:
        tail = ", …" if len(there) > 5 else ""
        raise DataError(
            f"{source} has no patients {', '.join(missing)}.",
            f"It has {len(there)}"
            + (f": {', '.join(there[:5])}{tail}." if options.keep_identifiers else "."),
        )
    return [item for item in examinations if not options.patients or item.patient in options.patients]


def _shown(examination: Examination, options: ImportOptions) -> str:
    return examination.label if options.keep_identifiers else examination.number or examination.label


def _volumes_of(
    examination: Examination,
    kind: str,
    options: ImportOptions,
    names: Names,
    maps: Maps | None,
    remarks: list[str],
) -> Iterator[Volume]:
    """The volumes of one examination: one, or as many as there are slabs."""
    label, where = examination.label, _shown(examination, options)
    patient = names.patient(examination.patient)
    name = f"{patient}-{names.examination(examination.patient, label)}"
    for number, slab in enumerate(choose_slabs(examination.load(), options, where=where)):
        suffix = f"-slab-{number}" if options.slabs > 1 else ""
        if isinstance(slab, MagnitudeImages):
            # Of the keyed pseudonym: from the identifier itself, anybody could try out identifiers until
            # one gives the coils, phase and noise of the file.
            seed = derive_seed(options.seed, patient, name, number)
            scan = scan_images(slab, options, maps, seed=seed, where=where)
        else:
            scan = refine_kspace(slab, options, where=where)
        remarks += scan.remarks
        notes = {**scan.notes, "source": kind}
        if options.keep_identifiers:
            notes["source_name"] = label
        yield make_volume(replace(scan, notes=notes), options, name=name + suffix, patient=patient + suffix)


def _write(path: Path, volume: Volume, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        there = read_volume(path)
        if not np.array_equal(there.kspace, volume.kspace) or there.patient != volume.patient:
            raise DataError(
                f"{path} exists already and holds something else.",
                "Import into another directory, or replace it with --overwrite. Files of the same name from "
                "different places count as the same examination: rename one of them.",
            )
    write_volume(path, volume)


def _nothing_imported(source: Path, problems: list[Problem]) -> DataError:
    if not problems:
        return DataError(f"{source} holds no examination.", "Check the path.")
    first, others = problems[0], len(problems) - 1
    more = f" {others} other examinations were refused, too." if others else ""
    return DataError(f"Nothing of {source} could be imported. {first.reason}{more}", first.remedy)
