"""``reconsent scenario …``: situations a consortium gets into, played through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from cli.scenarios.judging import Finding

app = typer.Typer(help="Situations a consortium gets into, declared in files and played through.")


@app.command("list")
def list_scenarios() -> None:
    """List the scenarios, and what happens in each."""
    from cli.scenarios.catalogue import load_scenario, names

    console = Console()
    for name in names():
        scenario = load_scenario(name)
        console.print(f"[bold]{name}[/bold]: {scenario.title}", highlight=False)
        console.print(f"  {scenario.about}", highlight=False)


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="A scenario (see `reconsent scenario list`), or its file.")],
    preset: Annotated[
        str, typer.Option("--preset", help="The consortium it changes: demo, tiny, paper.")
    ] = "demo",
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="One seed gives one result.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory of the run (default: runs/NAME-PRESET).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Clients at once (default: one a core).")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the report's path.")] = False,
) -> None:
    """Play a scenario: simulate its consortium, and compare what came of it with what should.

    What should come of it is judged at the size of the preset `demo` or above; `tiny` shows that it runs.
    The model that nothing was done to is judged beside the unlearned one: a check that it passes too could
    not have noticed anything. Ends with status 1 if a check does not pass, or could not have noticed.

    Examples
    --------
      reconsent scenario run joined-late

      reconsent scenario run faulty-coil --preset tiny
    """
    from cli.scenarios.catalogue import consortium_of, load_scenario
    from cli.scenarios.judging import judge
    from cli.simulate import play

    scenario = load_scenario(name)
    config = consortium_of(name, scenario, preset, seed)
    console = Console(stderr=json_output)
    if not quiet:
        console.print(f"[bold]{scenario.title}[/bold]\n{scenario.about}", highlight=False)
    results = play(
        config, out or Path("runs") / config.name, workers=workers, json_output=json_output, quiet=quiet
    )
    if preset == "tiny" or not scenario.checks:
        return
    findings = judge(results, scenario.checks)
    if not quiet:
        console.print(_table(findings))
    if not all(finding.passed for finding in findings):
        raise typer.Exit(1)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table("", "what should be", "found", "had nothing been done", "verdict", title="Checks")
    for finding in findings:
        mark = {"passed": "✓", "failed": "✗"}.get(finding.verdict, "?")
        found, controls = (_shown(values) for values in (finding.values, finding.controls))
        table.add_row(
            mark,
            finding.check.says,
            found or "nothing",
            controls or ("-" if finding.check.control is None else "nothing"),
            finding.verdict,
        )
    return table


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:+.3g}" for value in values)
