"""The command line's entry point."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from cli.audit import audit
from cli.backup import backup, restore
from cli.bench import bench
from cli.calibrate import calibrate
from cli.certificate.commands import app as certificate
from cli.certs import app as certs
from cli.data import app as data
from cli.enrolment import add, readmit, replace_key
from cli.keys import app as keys
from cli.ledger import app as ledger
from cli.methods import methods
from cli.metrics import app as metrics
from cli.model import app as model
from cli.purge import purge
from cli.record import record
from cli.scenario import app as scenario
from cli.server import app as server
from cli.simulate import simulate
from cli.site import app as site
from cli.status import status
from cli.train import attach, resume, train, unlearn
from cli.up import down, up
from cli.withdraw import withdraw
from cli.withdrawals import app as withdrawals
from reconsent import __version__
from reconsent.errors import ReconsentError

app = typer.Typer(
    name="reconsent",
    help="Train one MRI reconstructor across hospitals that never share a scan, and take a hospital's "
    "contribution out again when it withdraws, with evidence that it is out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command()(simulate)
app.command()(methods)
app.command()(audit)
app.command()(calibrate)
app.command()(bench)
app.command()(up)
app.command()(down)
for command in (train, attach, resume, withdraw, unlearn, status):
    app.command()(command)
app.command()(backup)
app.command()(restore)
app.command()(purge)
app.command()(record)
app.add_typer(withdrawals, name="withdrawals")
app.add_typer(certificate, name="certificate")
app.add_typer(data, name="data")
app.add_typer(scenario, name="scenario")
site.command()(add)
site.command()(readmit)
site.command("replace-key")(replace_key)
app.add_typer(site, name="site")
app.add_typer(model, name="model")
app.add_typer(ledger, name="ledger")
app.add_typer(keys, name="keys")
app.add_typer(certs, name="certs")
app.add_typer(server, name="server")
app.add_typer(metrics, name="metrics")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"reconsent {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""
    del version


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a ReconsentError is printed without a traceback and ends with status 1.

    Parameters
    ----------
    arguments
        Without the program's name; those of the process if ``None``.
    """
    try:
        app(args=None if arguments is None else list(arguments))
    except ReconsentError as error:
        typer.echo(f"Error: {error.problem}", err=True)
        if error.remedy:
            typer.echo(f"       {error.remedy}", err=True)
        sys.exit(1)
    except OSError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
