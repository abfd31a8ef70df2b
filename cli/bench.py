"""``reconsent bench``: every method of unlearning side by side."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def bench(
    preset: Annotated[
        str, typer.Option("--preset", help="A plan: small, fresh, paper, tiny; or a plan's file (.toml).")
    ] = "small",
    methods: Annotated[
        list[str] | None, typer.Option("--methods", help="Only this method; repeat it for several.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Report on the first so many seeds of the plan only.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where attempts and summary are kept (default: bench/results/PLAN)."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Where consortia are trained; large (default: runs/bench-PLAN)."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="Write the page here (default: OUT/benchmark.md).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Clients at once (default: one a core).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the plan and say what would be done.")
    ] = False,
    as_it_is: Annotated[
        bool, typer.Option("--as-it-is", help="Make no attempt: write the page of what was found so far.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")
    ] = False,
) -> None:
    """Compare the methods of unlearning, each at its own best settings.

    Settings are chosen on other seeds and other organs than those reported, with at most the same number of
    trials for every method. Each attempt is kept as it is made: the same command goes on where it was
    stopped.

    Examples
    --------
      reconsent bench --preset tiny

      reconsent bench --methods cached-ascent --methods retain-ft --seeds 1

      reconsent bench --page docs/benchmark.md --as-it-is
    """
    from cli.assessment import default_workers
    from cli.benchmark.page import write_page
    from cli.benchmark.plan import load_plan, select
    from cli.benchmark.run import Benchmark
    from cli.benchmark.store import Store
    from cli.benchmark.summary import as_json, summarise
    from cli.progress import ProgressBoard
    from reconsent.files import write_atomically

    plan = select(load_plan(preset), methods or [], seeds)
    usual = Path("bench") / "results" / plan.name
    command = _command(preset, methods or [], seeds, None if out == usual else out, page)
    out = out or usual
    benchmark = Benchmark(
        plan,
        work or Path("runs") / f"bench-{plan.name}",
        Store(out / "attempts.jsonl"),
        workers=workers or default_workers(),
    )
    console = Console(stderr=json_output)
    if benchmark.foreign:
        console.print(
            f"{benchmark.foreign} records of {out / 'attempts.jsonl'} are of other consortia than the "
            "plan's, though of the same names. They are not used.",
            highlight=False,
        )
    if dry_run:
        cases = [*plan.search, *plan.report]
        bases = len({case.base_name for case in cases})
        trials = sum(len(plan.candidates(method)) for method in plan.config.methods)
        varied = sum(map(len, benchmark.varied().values()))
        console.print(
            f"{plan.config.title}: {bases} consortia and {len(cases)} oracles to train, "
            f"{trials * len(plan.search)} settings to try, "
            f"{len(plan.report) * len(plan.config.methods)} attempts to report, "
            f"{len(plan.report) * varied} with a setting varied, "
            f"{len(plan.report) * plan.config.other_oracles} further oracles for the noise floor; "
            f"{benchmark.unfinished} attempts are still to be made.",
            highlight=False,
        )
        return
    if not as_it_is:
        with ProgressBoard(console, quiet=json_output) as board:
            benchmark.run(board.step)
    summary = as_json(summarise(benchmark))
    write_atomically(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    write_page(benchmark, page or out / "benchmark.md", command)
    if json_output:
        typer.echo(json.dumps(summary))
        return
    typer.echo(f"Page: {page or out / 'benchmark.md'}")


def _command(preset: str, methods: list[str], seeds: int | None, out: Path | None, page: Path | None) -> str:
    """The command that writes this page again."""
    options: list[tuple[str, object]] = [("--preset", preset), *(("--methods", name) for name in methods)]
    options += [("--seeds", seeds), ("--out", out), ("--page", page)]
    told = [f"{name} {shlex.quote(str(value))}" for name, value in options if value is not None]
    return " ".join(["reconsent bench", *told])
