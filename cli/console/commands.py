"""The commands of ``reconsent console``."""

from __future__ import annotations

import ipaddress
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.deployment import StateOption
from cli.register import JsonOption, opened
from reconsent.errors import ConfigError

if TYPE_CHECKING:
    from cli.console.serving import Address

app = typer.Typer(
    help="A web application for the privacy officer: withdrawals, deadlines, certificates, ledger.",
    invoke_without_command=True,
)
user = typer.Typer(no_args_is_help=True, help="Who may use the console: add, list, remove, password, role.")
app.add_typer(user, name="user")

RoleName = Literal["viewer", "officer", "operator"]
NameArgument = Annotated[str, typer.Argument(help="The user's name.")]


@app.callback()
def serve(
    context: typer.Context,
    state: StateOption = None,
    address: Annotated[str, typer.Option("--address", help="Where to listen.")] = "127.0.0.1:9480",
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="Certificate for TLS (PEM, with its chain).")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Its private key (PEM).")] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="A further host name it is reached by; repeatable."),
    ] = None,
    idle_minutes: Annotated[
        float, typer.Option("--idle-minutes", min=1, max=480, help="Log out whoever does nothing so long.")
    ] = 30,
) -> None:
    """Serve the console until it is stopped.

    It works beside a server and without one. It listens on this machine only, unless there is a certificate.

    Examples
    --------
      reconsent console user add ada --role officer

      reconsent console

      reconsent console --address 0.0.0.0:9480 --certificate console.crt --key console.key
    """
    if context.invoked_subcommand is not None:
        return
    from cli.console.serving import serve as run
    from reconsent.environment import state_path

    run(
        state_path(state),
        _address(address, certificate, key),
        certificate=certificate,
        key=key,
        names=name or [],
        idle_seconds=idle_minutes * 60,
        tell=typer.echo,
    )


@user.command()
def add(
    name: NameArgument,
    role: Annotated[RoleName, typer.Option("--role", help="What for.")],
    state: StateOption = None,
) -> None:
    """Let somebody use the console; the password is asked for, or read from standard input."""
    from cli.console.passwords import hash_password
    from server.persistence import ConsoleUsers, Role

    hashed = hash_password(_password(name))
    with opened(state, writable=True) as directory:
        added = ConsoleUsers(directory).add(name, Role(role), hashed)
    typer.echo(f"{added.name}: {added.role}, {added.id} in the ledger.")


@user.command("list")
def list_users(state: StateOption = None, json_output: JsonOption = False) -> None:
    """List who may use the console."""
    from server.persistence import ConsoleUsers

    with opened(state) as directory:
        users = ConsoleUsers(directory).all()
    if json_output:
        shown = [
            {"id": u.id, "name": u.name, "role": u.role.value, "created_at": u.created_at.isoformat(),
             "changed_at": u.changed_at.isoformat()}
            for u in users
        ]  # fmt: skip
        typer.echo(json.dumps(shown, indent=2))
        return
    for found in users:
        typer.echo(f"{found.id}  {found.role.value:<9} {found.name}")


@user.command()
def remove(name: NameArgument, state: StateOption = None) -> None:
    """Let somebody use the console no more; ends their session with the next page."""
    from server.persistence import ConsoleUsers

    with opened(state, writable=True) as directory:
        ConsoleUsers(directory).remove(name)
    typer.echo(f"{name}: removed.")


@user.command()
def password(name: NameArgument, state: StateOption = None) -> None:
    """Give a user another password; ends their sessions."""
    from cli.console.passwords import hash_password
    from server.persistence import ConsoleUsers

    hashed = hash_password(_password(name))
    with opened(state, writable=True) as directory:
        ConsoleUsers(directory).set_password(name, hashed)
    typer.echo(f"{name}: new password.")


@user.command("role")
def set_role(
    name: NameArgument,
    role: Annotated[RoleName, typer.Argument(help="The new role.")],
    state: StateOption = None,
) -> None:
    """Give a user another role; ends their sessions."""
    from server.persistence import ConsoleUsers, Role

    with opened(state, writable=True) as directory:
        ConsoleUsers(directory).set_role(name, Role(role))
    typer.echo(f"{name}: {role}.")


def _password(name: str) -> str:
    """From a prompt, or the first line of standard input where nobody can be asked."""
    if sys.stdin.isatty():
        return str(typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


def _address(text: str, certificate: Path | None, key: Path | None) -> Address:
    from cli.console.serving import Address
    from reconsent.exposition.web_server import split_address

    host, port = split_address(text)
    if (certificate is None) != (key is None):
        raise ConfigError("TLS needs a certificate and its key.", "Give both --certificate and --key.")
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local and certificate is None:
        raise ConfigError(
            f"The console does not listen on {text} without TLS: passwords would cross the network in clear.",
            "Give --certificate and --key (`reconsent certs make` makes some), or leave it on 127.0.0.1.",
        )
    return Address(host, port)
