"""``reconsent data``: make, import and check a site's data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from reconsent.config import Contrast, Organ, PhantomConfig
from reconsent.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mri.directory import DirectoryReport
    from mri.importing import ImportReport

app = typer.Typer(
    name="data",
    help="Make, import and check the data of a site: a directory of fastMRI HDF5 files, one a volume.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]

_Kind = Literal["auto", "dicom", "nifti", "images", "kspace", "ismrmrd", "fastmri"]
_Axis = Literal["sagittal", "coronal", "axial"]


@app.command()
def synth(
    directory: Annotated[Path, typer.Argument(help="Where to write; made if it does not exist.")],
    organ: Annotated[Organ, typer.Option(help="What is scanned.")] = "brain",
    patients: Annotated[int, typer.Option(min=1, help="Patients; each is one volume.")] = 8,
    slices: Annotated[int, typer.Option(min=1, help="Slices a patient.")] = 4,
    matrix: Annotated[
        str, typer.Option(metavar="ROWSxCOLUMNS", help="Readout samples and phase encodes.")
    ] = "64x64",
    coils: Annotated[int, typer.Option(min=1, max=16, help="Receive coils.")] = 4,
    contrast: Annotated[Contrast, typer.Option(help="Weighting of the spin echo.")] = "T2w",
    field_strength: Annotated[float, typer.Option(min=0.01, help="Field of the magnet, in tesla.")] = 3.0,
    noise: Annotated[
        float, typer.Option(min=0.0, help="Standard deviation of the noise over the image's maximum.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="One seed gives the same patients again.")] = 0,
    prefix: Annotated[str, typer.Option(help="Of file names and pseudonyms (default: the organ).")] = "",
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Make phantoms: random patients with anatomy, relaxation times, coils and noise.

    The same options on the same directory change nothing, and complete what
    was interrupted; other options replace the phantoms. A directory with
    other data is refused.

    Examples
    --------
      reconsent data synth data/knees --organ knee --patients 12

      reconsent data synth data/brains --matrix 128x128 --coils 8 --contrast T1w
    """
    from mri.site_data import synthesise_directory

    config = PhantomConfig(
        patients=patients,
        slices=slices,
        matrix=_phantom_matrix(matrix),
        coils=coils,
        contrast=contrast,
        field_strength=field_strength,
        noise=noise,
    )
    there = {path.name for path in directory.glob("*.h5")}
    with _progress("making phantoms", quiet=quiet or as_json) as progress:
        paths = synthesise_directory(
            directory, organ, config, seed=seed, prefix=prefix or organ, progress=progress
        )
    if as_json:
        _print_json({"directory": str(directory), "volumes": [path.name for path in paths]})
    elif not quiet:
        gone = len(there - {path.name for path in paths})
        removed = f" {gone} of other options were removed." if gone else ""
        Console().print(f"{len(paths)} phantoms ({organ}) are in {directory}.{removed}", highlight=False)


@app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(help="File, or directory; directories below it are searched, too.")
    ],
    directory: Annotated[Path, typer.Argument(help="Where to write; made if it does not exist.")],
    organ: Annotated[Organ, typer.Option(help="What is shown.")],
    kind: Annotated[_Kind, typer.Option(help="Format of the source; found out unless given.")] = "auto",
    matrix: Annotated[
        str | None,
        typer.Option(
            metavar="ROWSxCOLUMNS", help="Centre of k-space to keep: sets the resolution (default: all)."
        ),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(metavar="ROWSxCOLUMNS", help="Pixels of the images to keep before that, or to pad to."),
    ] = None,
    coils: Annotated[
        int | None,
        typer.Option(min=1, help="Coils for images (default: 4 simulated, or all of --coil-maps)."),
    ] = None,
    coil_maps: Annotated[
        Path | None,
        typer.Option(help="Complex sensitivities (coils, rows, columns) as .npy or .npz, for images."),
    ] = None,
    noise: Annotated[
        float, typer.Option(min=0.0, help="Noise added to images: standard deviation over the maximum.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Of the phase, coils and noise of images.")] = 0,
    axis: Annotated[_Axis, typer.Option(help="Plane of the slices of a NIfTI image.")] = "axial",
    slices: Annotated[
        str | None, typer.Option(metavar="FIRST:LAST", help="Slices to take, counted from 0, without LAST.")
    ] = None,
    slice_step: Annotated[int, typer.Option(min=1, help="Take every n-th slice.")] = 1,
    slabs: Annotated[
        int,
        typer.Option(
            min=1,
            help="Cut each examination into slabs that count as patients. For trials with one person's "
            "examination; results on it say nothing about other people.",
        ),
    ] = 1,
    acquisition: Annotated[
        str, typer.Option(help="fastMRI's name of the sequence, such as AXT2 (default: by the organ).")
    ] = "",
    patient: Annotated[
        list[str] | None,
        typer.Option(help="Take only this patient, by the source's identifier; repeat it for several."),
    ] = None,
    keep_identifiers: Annotated[
        bool,
        typer.Option(
            "--keep-identifiers", help="Keep patient identifiers instead of pseudonyms. Think twice."
        ),
    ] = False,
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="Secret key of the pseudonyms; made if missing. Never within the directory "
            "(default: reconsent/pseudonym.key in your configuration directory)."
        ),
    ] = None,
    drop_empty: Annotated[
        bool, typer.Option("--drop-empty", help="Remove all-zero slices and coils of k-space.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace volumes of the same name.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Import scans: DICOM, NIfTI, NumPy arrays, ISMRMRD raw data or fastMRI files.

    [bold]K-space[/bold] (ISMRMRD, fastMRI, complex arrays (slices, coils, rows,
    columns)) stays what it is; it must be Cartesian and fully sampled.
    --matrix keeps that much of its centre.

    [bold]Magnitude images[/bold] (DICOM, NIfTI, real arrays) become retrospective
    k-space: coils, a smooth phase and noise are added, and the volumes are
    marked as retrospective. --crop cuts or pads the images first (in their
    own pixels); --matrix then sets the resolution and keeps the field of
    view. A .npz with image (slices, rows, columns) and patient_id (slices,)
    gives one volume a patient.

    Patients get pseudonyms under a secret key; names, dates and identifiers
    are not taken over, and the report names the fields that stayed behind.
    Text that is burned into pixels is not found.

    Examples
    --------
      reconsent data import scans/ data/hearts --organ heart --matrix 96x96

      reconsent data import head.nii data/brain --organ brain --coil-maps maps.npz

      reconsent data import meas.h5 data/knees --organ knee
    """
    from mri.importing import ImportOptions, import_directory

    options = ImportOptions(
        organ=organ,
        kind=kind,
        matrix=None if matrix is None else _shape(matrix, "--matrix"),
        crop=None if crop is None else _shape(crop, "--crop"),
        coils=coils,
        coil_maps=coil_maps,
        noise=noise,
        seed=seed,
        axis=axis,
        slices=None if slices is None else _range(slices),
        slice_step=slice_step,
        slabs=slabs,
        acquisition=acquisition,
        patients=tuple(patient or ()),
        keep_identifiers=keep_identifiers,
        key_file=key_file,
        drop_empty=drop_empty,
        overwrite=overwrite,
    )
    with _progress("importing", quiet=quiet or as_json) as progress:
        report = import_directory(source, directory, options, progress=progress)
    if as_json:
        _print_json(asdict(report))
    elif not quiet:
        _print_import(report, Console())
    if report.problems:
        raise DataError(
            f"{len(report.volumes)} volumes were imported, but not everything: {_listed(report.problems)}"
        )


@app.command()
def check(
    directory: Annotated[Path, typer.Argument(help="Directory of fastMRI HDF5 files.")],
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Read every volume of a directory, and list everything that is wrong with it.

    Ends with status 1 if a site could not be trained on the directory as it is.

    Examples
    --------
      reconsent data check data/knees

      reconsent data check data/knees --json
    """
    from mri.directory import check_directory

    with _progress("reading", quiet=quiet or as_json) as progress:
        report = check_directory(directory, progress=progress)
    if as_json:
        _print_json(_check_table(report))
    elif not quiet:
        _print_check(report, Console())
    if not report.trainable:
        if quiet:
            raise DataError(f"{directory} cannot be trained on: {_listed(report.problems)}")
        raise typer.Exit(1)


def _print_import(report: ImportReport, console: Console) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("format", report.kind)
    table.add_row("volumes", f"{len(report.volumes)} in {report.destination}")
    table.add_row("patients", f"{len(report.patients)}: {_some(report.patients)}")
    table.add_row("slices", str(report.slices))
    table.add_row("k-space", report.provenance)
    if report.key_file is None:
        table.add_row("identifiers", "kept")
    else:
        table.add_row("left behind", ", ".join(report.dropped) or "nothing was there")
        table.add_row("key", f"{report.key_file} (keep it secret, and apart from the volumes)")
    for remark in report.remarks:
        table.add_row("note", escape(remark))
    console.print(table, highlight=False)


def _print_check(report: DirectoryReport, console: Console) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("volumes", str(len(report.volumes)))
    table.add_row("patients", f"{len(report.patients)}: {_some(list(report.patients))}")
    table.add_row("slices", str(report.slices))
    table.add_row("coils", _counts(report.coils))
    table.add_row(
        "matrix", _counts({f"{rows}x{columns}": n for (rows, columns), n in report.matrices.items()})
    )
    table.add_row("acquisition", _counts(report.acquisitions))
    table.add_row("organ", _counts(report.organs))
    table.add_row("k-space", _counts(report.provenances))
    table.add_row("memory", f"{report.size_bytes / 2**20:.1f} MiB")
    if report.ignored:
        table.add_row("passed over", _some(report.ignored))
    console.print(table, highlight=False)
    for problem in report.problems:
        console.print(f"\n[bold red]{escape(problem.name)}[/bold red]", highlight=False)
        console.print(f"  {problem.reason}\n  {problem.remedy}", highlight=False, markup=False)
    verdict = "can be trained on" if report.trainable else "cannot be trained on"
    console.print(f"\n{report.directory} {verdict}.", highlight=False, markup=False)


def _check_table(report: DirectoryReport) -> dict[str, Any]:
    return {
        "directory": str(report.directory),
        "trainable": report.trainable,
        "patients": report.patients,
        "slices": report.slices,
        "size-bytes": report.size_bytes,
        "coils": report.coils,
        "matrices": {f"{rows}x{columns}": count for (rows, columns), count in report.matrices.items()},
        "acquisitions": report.acquisitions,
        "organs": report.organs,
        "provenance": report.provenances,
        "problems": [asdict(problem) for problem in report.problems],
        "ignored": report.ignored,
    }


def _print_json(table: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(table, indent=2, default=str))


def _counts(counts: Mapping[Any, int]) -> str:
    return escape(", ".join(f"{value or 'unknown'} ({count})" for value, count in counts.items())) or "none"


def _some(names: tuple[str, ...] | list[str]) -> str:
    return escape(", ".join(names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _listed(problems: tuple[Any, ...]) -> str:
    lines = [f"\n  {problem.name}: {problem.reason} {problem.remedy}" for problem in problems[:10]]
    return "".join(lines) + (f"\n  and {len(problems) - 10} more" if len(problems) > 10 else "")


def _shape(text: str, option: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})[x×,](\d{1,5})", text.strip())
    if match is None:
        raise ConfigError(f"{option} is '{text}'.", "Give rows and columns, such as 96x96.")
    return int(match[1]), int(match[2])


def _phantom_matrix(text: str) -> tuple[int, int]:
    rows, columns = _shape(text, "--matrix")
    if min(rows, columns) < 32 or max(rows, columns) > 1024:
        raise ConfigError(f"--matrix is '{text}'.", "Rows and columns must lie between 32 and 1024.")
    return rows, columns


def _range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6}):(\d{1,6})", text.strip())
    if match is None:
        raise ConfigError(f"--slices is '{text}'.", "Give the first and one past the last, such as 20:60.")
    return int(match[1]), int(match[2])


@contextmanager
def _progress(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
