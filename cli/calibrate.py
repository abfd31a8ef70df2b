"""``reconsent calibrate``: what such settings leave, before they are used on real data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from reconsent.config import load_consortium
from reconsent.errors import DataError

if TYPE_CHECKING:
    from cli.calibration import CalibrationResult
    from cli.results import Results
    from reconsent.config import ConsortiumConfig
    from unlearning.verification.finding import Finding


def calibrate(
    consortium: Annotated[
        str, typer.Argument(help="A consortium file (.toml), or a preset: tiny, demo, paper.")
    ],
    withdraw: Annotated[
        list[str] | None,
        typer.Option("--withdraw", help="Site that leaves; repeat it to try several. Default: each in turn."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Simulations of each leaver.")] = 1,
    out: Annotated[
        Path, typer.Option("--out", help="Directory of the simulations and of calibration.json.")
    ] = Path("runs/calibration"),
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Clients at once (default: one a core).")
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print calibration.json, and nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the path.")] = False,
) -> None:
    """Predict which gap from a retrained model the consortium's settings leave.

    In a real deployment nobody retrains, so the gap cannot be measured. This simulates the consortium, with
    its own network, training and unlearning settings, on phantoms of the sites' organs and number of
    patients, and measures it there. An interrupted calibration is taken up again by the same command.

    Examples
    --------
      reconsent calibrate hospitals.toml --withdraw knee --seeds 3

      reconsent calibrate tiny --out runs/calibration
    """
    from cli.assessment import default_workers
    from cli.calibration import calibrate as run_all
    from cli.consortium_data import prepare_data
    from cli.progress import ProgressBoard
    from cli.run_directory import RunDirectory
    from cli.simulation import assess, run_consortium
    from server.events import listening

    config = load_consortium(consortium)
    leaving = [[site] for site in withdraw or [site.name for site in config.sites]]
    for (site,) in leaving:
        config.site(site)
    processes = workers or default_workers()
    console = Console(stderr=json_output)

    def simulate(simulated: ConsortiumConfig) -> Results:
        left = "-".join(site for withdrawal in simulated.withdrawals for site in withdrawal.sites)
        directory = RunDirectory(out / f"{left}-seed-{simulated.seed}")
        directory.prepare(simulated)
        with (
            directory.environment(),
            ProgressBoard(console, quiet=quiet or json_output) as board,
            listening(board.listen),
        ):
            prepare_data(simulated, board.step)
            run_consortium(simulated, workers=min(processes, len(simulated.sites)))
            return assess(simulated, directory, board.step, workers=processes)

    first = config.seed
    found = run_all(config, leaving, range(first, first + seeds), simulate, patients=_patients(config))
    path = out / "calibration.json"
    found.save(path)
    if json_output:
        typer.echo(path.read_text(encoding="utf-8"))
        return
    if not quiet:
        console.print(_table(found))
        console.print(found.notice)
    typer.echo(f"Calibration: {path}")


def _patients(config: ConsortiumConfig) -> dict[str, int]:
    """How many patients each site with data of its own has, where they can be read here."""
    from client.site import site_split

    found = {}
    for site in config.sites:
        if site.data is None:
            continue
        try:
            split = site_split(config.seed, site)
        except DataError:
            # In a deployment the data are at the sites: then its [sites.phantom] says how many.
            continue
        found[site.name] = len(split.train) + len(split.test)
    return found


def _table(found: CalibrationResult) -> Table:
    calibration = found.calibration()
    table = Table(
        "gap", "to forget", "left", "next would lie in", "margin", "verdict",
        title=f"Predicted oracle gaps of {found.method}, in dB",
    )  # fmt: skip
    for name in calibration.gaps:
        finding = calibration.finding(name, found.margins[name])
        original = [run.original[name] for run in found.runs if name in run.original]
        table.add_row(
            name,
            f"{sum(original) / len(original):+.2f}" if original else "",
            f"{finding.value:+.2f}",
            "one simulation says nothing"
            if finding.low is None
            else f"{finding.low:+.2f} to {finding.high:+.2f}",
            f"± {found.margins[name]:g}",
            finding.verdict,
        )
    return table


def _range(finding: Finding) -> str:
    if finding.low is None or finding.high is None:
        return "one simulation says nothing"
    return f"{finding.low:+.2f} to {finding.high:+.2f}"
