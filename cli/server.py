"""``reconsent server``: the SuperLink alone, where the sites are on other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

app = typer.Typer(
    name="server",
    help="Run the server of a consortium whose sites are on other machines.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.callback()
def group() -> None:
    """Run the server of a consortium whose sites are on other machines."""


@app.command()
def run(
    consortium: Annotated[
        str, typer.Option("--consortium", help="The consortium file (.toml), or the name of a preset.")
    ],
    state: Annotated[
        Path | None,
        typer.Option("--state", help="State directory (default: RECONSENT_STATE, or ./reconsent-state)."),
    ] = None,
    tls: Annotated[
        Path | None,
        typer.Option(
            "--tls",
            help="Directory with ca.crt, server.pem and server.key (default: where `reconsent certs make` "
            "puts them).",
            show_default=False,
        ),
    ] = None,
    fleet_address: Annotated[
        str, typer.Option("--fleet-address", help="Where the sites' nodes connect.")
    ] = "0.0.0.0:9092",
    api_port: Annotated[
        int,
        typer.Option(
            "--api-port", min=1, max=65535, help="Of Flower's commands; always on 127.0.0.1, no password."
        ),
    ] = 8000,
    health_address: Annotated[
        str, typer.Option("--health-address", help="Of the gRPC health server; without TLS.")
    ] = "127.0.0.1:9099",
    check: Annotated[bool, typer.Option("--check", help="Check everything, and start nothing.")] = False,
) -> None:
    """Run the SuperLink in the foreground, with TLS and authenticated sites, until it is stopped.

    For systemd and containers, which start it again when it dies. Then `reconsent site add` enrols the sites,
    and `reconsent train` and the like work as on one machine; call them on this machine, with the same
    state directory.

    Examples
    --------
      reconsent certs make --host superlink.clinic.example

      reconsent server run --consortium hospitals.toml
    """
    from deploy.superlink import SuperLinkSettings, prepare_superlink, run_superlink
    from reconsent.environment import state_path

    start = prepare_superlink(
        SuperLinkSettings(state_path(state), consortium, tls, fleet_address, api_port, health_address)
    )
    for warning in start.warnings:
        Console(stderr=True).print(f"[yellow]{escape(warning)}[/]", highlight=False, soft_wrap=True)
    if check:
        typer.echo("All is well; nothing was started.")
        return
    run_superlink(start)
