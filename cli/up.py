"""``reconsent up`` and ``reconsent down``: a consortium of real processes on this machine."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.deployment import StateOption
from reconsent.config import ConsortiumConfig, load_consortium

if TYPE_CHECKING:
    from deploy.component import Component, Report
    from deploy.local_consortium import LocalConsortium

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")]

DEFAULT = "tiny"


def up(
    consortium: Annotated[
        str | None,
        typer.Argument(
            help="A consortium file (.toml), or a preset: tiny, demo, paper (default: what ran here last, "
            "else tiny).",
            show_default=False,
        ),
    ] = None,
    sites: Annotated[
        int | None,
        typer.Option("--sites", min=2, help="So many sites: the first ones, or more with phantoms."),
    ] = None,
    state: StateOption = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Without TLS, and without authentication of the sites. Trials only."),
    ] = False,
    metrics: Annotated[
        bool, typer.Option("--metrics/--no-metrics", help="Exporters for Prometheus, at server and sites.")
    ] = True,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Start a consortium on this machine: a SuperLink, and a SuperNode for each site.

    Certificates and keys are made on the first time, and the sites registered. What runs already is left
    alone, what died is started again with the same keys and ports: repeat it whenever in doubt. The processes
    outlive the terminal; `reconsent down` stops them.

    Examples
    --------
      reconsent up

      reconsent up demo --sites 3

      reconsent up hospitals.toml --state /srv/reconsent
    """
    from deploy.local_consortium import LocalConsortium
    from reconsent.environment import state_path

    local = LocalConsortium(state_path(state))
    config = _chosen(local, consortium, sites)
    notes = Console(stderr=True)
    if insecure:
        notes.print(
            "[bold yellow]Warning:[/] without TLS and authentication anybody who reaches the ports can read "
            "the models, and claim to be a site. For trials on one machine only."
        )
    report = _reporter(notes, quiet=quiet or as_json)
    components = local.up(config, insecure=insecure, metrics=metrics, report=report)
    if as_json:
        typer.echo(json.dumps([asdict(component) for component in components], indent=2, default=str))
    elif not quiet:
        _print(local, config, components)


def down(state: StateOption = None, as_json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Stop what `reconsent up` has started: the SuperNodes first, then the SuperLink.

    A run that is under way ends with it, and can be resumed. Models, keys and certificates stay.

    Examples
    --------
      reconsent down

      reconsent down --state /srv/reconsent
    """
    from deploy.local_consortium import LocalConsortium
    from reconsent.environment import state_path

    local = LocalConsortium(state_path(state))
    stopped = local.down(report=_reporter(Console(stderr=True), quiet=quiet or as_json))
    if as_json:
        typer.echo(json.dumps({"stopped": stopped}, indent=2))
    elif not quiet:
        done = f"Stopped: {', '.join(stopped)}." if stopped else f"Nothing runs in {local.layout.state}."
        typer.echo(done)


def _chosen(local: LocalConsortium, source: str | None, sites: int | None) -> ConsortiumConfig:
    from deploy.scaling import with_sites

    last = local.config() if source is None else None
    config = last or load_consortium(source or DEFAULT)
    return config if sites is None else with_sites(config, sites)


def _reporter(console: Console, *, quiet: bool) -> Report:
    """Prints steps unless it shall be quiet, and warnings in any case."""

    def report(text: str, *, warning: bool = False) -> None:
        if warning:
            console.print(f"[yellow]{escape(text)}[/]", highlight=False, soft_wrap=True)
        elif not quiet:
            console.print(f"{escape(text)} …", style="dim", highlight=False, soft_wrap=True)

    return report


def _metrics_lines(local: LocalConsortium, components: list[Component]) -> list[str]:
    ports = {component.name: component.ports for component in components if component.pid is not None}
    if "metrics" not in ports:
        return []
    return [
        f"Metrics: http://127.0.0.1:{ports['metrics']['metrics']}/metrics; all addresses, for Prometheus, in "
        f"{local.layout.metrics_targets}"
    ]


def _print(local: LocalConsortium, config: ConsortiumConfig, components: list[Component]) -> None:
    from reconsent.environment import state_path

    console = Console()
    table = Table(box=None, pad_edge=False)
    for heading in ("process", "status", "pid", "ports on 127.0.0.1"):
        table.add_column(heading, overflow="fold")
    for component in components:
        ports = ", ".join(f"{purpose} {port}" for purpose, port in component.ports.items())
        colour = "green" if component.status == "running" else "yellow"
        table.add_row(
            component.name,
            f"[{colour}]{component.status}[/]",
            str(component.pid or ""),
            ports,
        )
    console.print(table)
    at = "" if local.layout.state == state_path(None) else f" --state {shlex.quote(str(local.layout.state))}"
    for line in (
        f"Consortium '{config.name}', in {local.layout.state}; logs in {local.layout.logs}",
        f"Flower's own commands: FLWR_HOME={local.layout.flower_home} flwr supernode list",
        *_metrics_lines(local, components),
        f"Stop it: reconsent down{at}",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
