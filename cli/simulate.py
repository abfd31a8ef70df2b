"""``reconsent simulate``: a whole consortium on this machine."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cli.metrics import serving
from reconsent.config import ConsortiumConfig, load_consortium, parse_consortium
from reconsent.errors import ConfigError
from reconsent.workers import import_beforehand

if TYPE_CHECKING:
    from cli.results import Results
    from cli.run_directory import RunDirectory


def simulate(
    consortium: Annotated[
        str, typer.Argument(help="A consortium file (.toml), or a preset: tiny, demo, paper.")
    ] = "demo",
    withdraw: Annotated[
        list[str] | None,
        typer.Option("--withdraw", help="Site that leaves; repeat it for several. Replaces the file's."),
    ] = None,
    at_round: Annotated[
        int | None,
        typer.Option(
            "--at-round",
            min=1,
            help="Training round after which they leave (default: the last). Without --rounds, the training "
            "is made as long.",
        ),
    ] = None,
    cooperating: Annotated[
        bool | None,
        typer.Option(
            "--cooperating/--gone",
            help="Whether they still answer for their part of the unlearning, which some methods need.",
            show_default=False,
        ),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(
            "--patients",
            help="Only these patients of the site leave, and it stays: a file with one pseudonym a line, as "
            "`reconsent data check` shows them.",
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="How they are unlearned; see `reconsent methods`.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the method, as key=value; repeat it for several."),
    ] = None,
    oracle: Annotated[
        bool | None,
        typer.Option("--oracle/--no-oracle", help="Also retrain without the site, to compare with."),
    ] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="Training rounds.")] = None,
    continue_rounds: Annotated[
        int | None, typer.Option("--continue-rounds", min=0, help="Training rounds after the unlearning.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="One seed gives one result.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Directory of the run (default: runs/NAME-DATE-TIME). An interrupted "
            "run is taken up again by the same command with the same --out.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Clients at once (default: one a core).")
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the report's path.")] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=1,
            max=65535,
            help="Serve metrics to Prometheus on this port of 127.0.0.1 while it runs.",
        ),
    ] = None,
) -> None:
    """Train a consortium, withdraw a site, unlearn it, and compare with the model retrained without it.

    CONSORTIUM is a consortium file (.toml) or a preset: tiny, demo, paper.

    Everything runs on this machine, on Flower's simulation engine, with the very ServerApp and ClientApp of
    a real deployment. Sites without data of their own get built-in phantoms. The run's directory holds
    report.html, results.json, the consortium file, the data and the server's state.

    Examples
    --------
      reconsent simulate

      reconsent simulate tiny --withdraw knee --method retain-ft

      reconsent simulate --withdraw knee --patients leaving.txt --method ga-l1-ft

      reconsent simulate hospitals.toml --withdraw clinic-b --at-round 40 --out runs/clinic-b

      reconsent simulate --set alpha=2.0 --set guard=none --seed 1
    """
    config = override(
        load_consortium(consortium),
        withdraw=withdraw,
        at_round=at_round,
        cooperating=cooperating,
        patients=None if patients is None else pseudonyms_in(patients),
        method=method,
        setting=setting,
        oracle=oracle,
        rounds=rounds,
        continue_rounds=continue_rounds,
        seed=seed,
    )
    stamp = dt.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = out or Path("runs") / f"{config.name}-{stamp}"
    with serving(path / "state", path / "consortium.toml", metrics_port):
        play(config, path, workers=workers, json_output=json_output, quiet=quiet)


def play(
    config: ConsortiumConfig, path: Path, *, workers: int | None, json_output: bool, quiet: bool
) -> Results:
    """Simulate a consortium in the directory ``path``, and print what was found."""
    from cli.run_directory import RunDirectory
    from cli.simulation import found_before
    from strategies.methods import check_plan

    check_plan(config)
    directory = RunDirectory(path)
    directory.prepare(config)
    console = Console(stderr=json_output)
    with directory.environment():
        results = found_before(directory)
        if results is None:
            # While this process imports what it needs, and makes phantoms: it has one core for that.
            import_beforehand("cli.assessment")
            results = _run(config, directory, console, workers=workers, quiet=quiet or json_output)
    if json_output:
        typer.echo(directory.results.read_text(encoding="utf-8"))
        return results
    if not quiet:
        from cli.report.terminal import render_table

        console.print(render_table(results))
    typer.echo(f"Report: {directory.report}")
    return results


def _run(
    config: ConsortiumConfig, directory: RunDirectory, console: Console, *, workers: int | None, quiet: bool
) -> Results:
    # These take seconds to import; whoever mistyped something need not wait for them.
    from cli.assessment import default_workers
    from cli.consortium_data import prepare_data
    from cli.progress import ProgressBoard
    from cli.simulation import assess, run_consortium
    from server.events import listening

    workers = workers or default_workers()
    with ProgressBoard(console, quiet=quiet) as board, listening(board.listen):
        prepare_data(config, board.step)
        run_consortium(config, workers=min(workers, len(config.sites)))
        return assess(config, directory, board.step, workers=workers)


def override(
    config: ConsortiumConfig,
    *,
    withdraw: list[str] | None,
    at_round: int | None,
    cooperating: bool | None,
    patients: tuple[str, ...] | None,
    method: str | None,
    setting: list[str] | None,
    oracle: bool | None,
    rounds: int | None,
    continue_rounds: int | None,
    seed: int | None,
) -> ConsortiumConfig:
    """A consortium with the command line's options in place of the file's.

    Raises
    ------
    ConfigError
        If the options do not fit the consortium or each other.
    """
    table: dict[str, Any] = config.model_dump(mode="python", by_alias=True)
    if rounds is not None:
        table["training"]["rounds"] = rounds
    elif at_round is not None:
        table["training"]["rounds"] = max(at_round, table["training"]["rounds"])
    wanted = {"at-round": at_round, "cooperating": cooperating, "patients": patients}
    given = {key: value for key, value in wanted.items() if value is not None}
    if withdraw:
        table["withdrawals"] = [{"sites": withdraw, **given}]
    elif given:
        if len(table["withdrawals"]) != 1:
            raise ConfigError(
                "--at-round, --cooperating and --patients say more of a withdrawal; the consortium file has "
                f"{len(table['withdrawals'])}.",
                "Add --withdraw SITE.",
            )
        table["withdrawals"] = [{**table["withdrawals"][0], **given}]
    if method is not None and method != table["unlearning"]["method"]:
        table["unlearning"] = {**table["unlearning"], "method": method, "settings": {}}
    for item in setting or []:
        key, separator, value = item.partition("=")
        if not separator:
            raise ConfigError(f"--set wants key=value, got '{item}'.", "For example --set alpha=2.0.")
        table["unlearning"]["settings"] = {
            **table["unlearning"]["settings"],
            key.strip(): setting_value(value),
        }
    if oracle is not None:
        table["assessment"]["oracle"] = oracle
    if continue_rounds is not None:
        table["continue-rounds"] = continue_rounds
    if seed is not None:
        table["seed"] = seed
    return parse_consortium(table, where="The command line", base=Path())


def pseudonyms_in(path: Path) -> tuple[str, ...]:
    """The pseudonyms in a file, one a line; empty lines, and what follows a ``#``, are left out.

    Raises
    ------
    ConfigError
        If it cannot be read, or names nobody.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The list of patients {path} cannot be read: {error}.", "Check the path."
        ) from None
    names = tuple(dict.fromkeys(name for line in lines if (name := line.partition("#")[0].strip())))
    if not names:
        raise ConfigError(f"{path} names no patient.", "Write one pseudonym a line.")
    return names


def setting_value(text: str) -> bool | int | float | str:
    """What a setting's text on the command line stands for."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
