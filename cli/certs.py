"""``reconsent certs``: the authority and the certificate of the SuperLink."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.deployment import StateOption

if TYPE_CHECKING:
    from deploy.certificates import CertificateStatus

_WHEN = (
    "A running SuperLink uses it once it is started anew: by `reconsent down` and `reconsent up`, or by its "
    "supervisor, if that is `reconsent server run`."
)

app = typer.Typer(
    name="certs",
    help="Make, renew and check the certificates under which sites and SuperLink talk.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
DirectoryOption = Annotated[
    Path | None,
    typer.Option("--dir", help="Directory of the certificates, if it is another.", show_default=False),
]
HostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        help="Name or address by which sites reach the SuperLink; repeat it for several. localhost and "
        "127.0.0.1 are always added.",
        show_default=False,
    ),
]
DaysOption = Annotated[
    int, typer.Option("--days", min=1, max=3650, help="Validity of the server certificate.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


@app.command()
def make(
    state: StateOption = None,
    directory: DirectoryOption = None,
    host: HostOption = None,
    days: DaysOption = 365,
    as_json: JsonFlag = False,
) -> None:
    """Make an authority and a server certificate under it; what is there already stays.

    Hand ca.crt to every site; ca.key and server.key leave this machine for no one.

    Examples
    --------
      reconsent certs make --host superlink.clinic.example
    """
    from deploy.certificates import make_certificates

    _show(make_certificates(_directory(state, directory), host or (), days=days), as_json=as_json)


@app.command()
def renew(
    state: StateOption = None,
    directory: DirectoryOption = None,
    host: HostOption = None,
    days: DaysOption = 365,
    as_json: JsonFlag = False,
) -> None:
    """Give the server a new key and certificate. The authority stays, so the sites need nothing new.

    A running SuperLink uses it once it is started anew.

    Examples
    --------
      reconsent certs renew

      reconsent certs renew --host superlink.clinic.example --days 90
    """
    from deploy.certificates import renew_certificates

    _show(renew_certificates(_directory(state, directory), host or (), days=days), as_json=as_json)
    if not as_json:
        typer.echo(_WHEN)


@app.command()
def check(state: StateOption = None, directory: DirectoryOption = None, as_json: JsonFlag = False) -> None:
    """Say how long the certificates are good for.

    Warns when it is less than 30 days; ends with status 1 when one has expired or cannot be used.

    Examples
    --------
      reconsent certs check --dir /srv/reconsent/deployment/tls
    """
    from deploy.certificates import certificate_statuses, check_certificates

    where = _directory(state, directory)
    _show(certificate_statuses(where), as_json=as_json)
    for warning in check_certificates(where):
        Console(stderr=True).print(f"[yellow]{escape(warning)}[/]", highlight=False, soft_wrap=True)


def _directory(state: Path | None, directory: Path | None) -> Path:
    from deploy.layout import Layout
    from reconsent.environment import state_path

    return directory.absolute() if directory is not None else Layout(state_path(state)).tls


def _show(statuses: list[CertificateStatus], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(status) for status in statuses], indent=2, default=str))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("certificate", "expires", "days left", "good for"):
        table.add_column(heading, overflow="fold")
    for status in statuses:
        colour = "red" if status.days_left < 0 else "yellow" if status.expiring else "green"
        table.add_row(
            escape(str(status.path)),
            f"{status.expires:%Y-%m-%d}",
            f"[{colour}]{status.days_left}[/]",
            escape(", ".join(status.hosts)) or "signing the server's",
        )
    Console().print(table)
