"""The command line's entry point."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from cli.audit import audit
from cli.backup import backup, restore
from cli.bench import bench
from cli.calibrate import calibrate
from cli.certificate.commands import app as certificate
from cli.certs import app as certs
from cli.console.commands import app as console
from cli.data import app as data
from cli.enrolment import add, readmit, replace_key
from cli.help_text import unwrap_all
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
    "contribution out again when it withdraws, with evidence that it is out.\n\n"
    "Begin with [bold]reconsent simulate tiny[/bold] (a minute, no data needed); open its report; "
    "then [bold]reconsent up[/bold], a real consortium of processes on this machine.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
PANELS: dict[str, dict[str, Callable[..., Any] | typer.Typer]] = {
    "Simulate on one machine": {
        "simulate": simulate,
        "methods": methods,
        "scenario": scenario,
        "bench": bench,
        "calibrate": calibrate,
    },
    "Data of a site": {"data": data},
    "Run a consortium": {
        "up": up,
        "down": down,
        "train": train,
        "attach": attach,
        "resume": resume,
        "status": status,
        "model": model,
    },
    "Withdraw, and prove it": {
        "withdraw": withdraw,
        "unlearn": unlearn,
        "withdrawals": withdrawals,
        "certificate": certificate,
        "console": console,
        "audit": audit,
        "ledger": ledger,
        "record": record,
    },
    "Several machines": {"server": server, "site": site, "certs": certs, "metrics": metrics},
    "Keep it safe": {"backup": backup, "restore": restore, "purge": purge, "keys": keys},
}
"""What ``reconsent --help`` shows, in this order."""

site.command()(add)
site.command()(readmit)
site.command("replace-key")(replace_key)
for panel, commands in PANELS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(command)
unwrap_all(app)


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
