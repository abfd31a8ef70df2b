"""What the privacy officer's commands have in common: the register, beside a server or without one."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconsent.errors import ConfigError, StateError
from unlearning.intake import Channel, IdentityCheck, RequesterRole

if TYPE_CHECKING:
    from reconsent.config import ConsortiumConfig
    from server.persistence import StateDirectory

WithdrawalArgument = Annotated[str, typer.Argument(help="Id of the withdrawal, or its beginning.")]
ByOption = Annotated[
    str | None,
    typer.Option(
        "--by", help="Who does it (default: the login name); kept with the record.", show_default=False
    ),
]
ChannelOption = Annotated[
    Channel | None, typer.Option("--channel", help="How the request came in.", show_default=False)
]
AgreementOption = Annotated[
    str | None,
    typer.Option(
        "--agreement",
        help="Number of the agreement with the site; in the certificate.",
        show_default=False,
    ),
]
RoleOption = Annotated[
    RequesterRole | None,
    typer.Option("--requester-role", help="What the requester is to the site.", show_default=False),
]
IdentityOption = Annotated[
    IdentityCheck | None,
    typer.Option(
        "--identity-check",
        help="How it was checked that the requester may speak for the site.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def actor(by: str | None) -> str:
    """Who gives the command: as named, or the login name."""
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        return "operator"


@contextmanager
def opened(state: Path | None, *, writable: bool = False) -> Iterator[StateDirectory]:
    """A state directory, of a deployment or of a simulation, also while a run holds it.

    Raises
    ------
    StateError
        If there is none, or it cannot be used.
    """
    from deploy.admission import open_beside_server
    from reconsent.environment import state_path
    from server.persistence import StateDirectory
    from server.persistence.state import DATABASE

    path = state_path(state)
    if not path.is_dir():
        raise StateError(
            f"There is no state directory {path}.", "Name it with --state, or set one up with `reconsent up`."
        )
    made = (path / DATABASE).exists() or not (path / "deployment").is_dir()
    if writable or not made:
        with open_beside_server(path) as directory:
            yield directory
    else:
        with StateDirectory.open(path, writable=False) as directory:
            yield directory


def consortium_of(state: Path | None) -> ConsortiumConfig:
    """The consortium of a state directory, of a deployment or of a simulation.

    Raises
    ------
    ConfigError
        If its file is not where either would have it.
    """
    from deploy.layout import Layout
    from reconsent.config import load_consortium
    from reconsent.environment import state_path

    path = state_path(state)
    for file in (Layout(path).consortium, path.parent / "consortium.toml"):
        if file.is_file():
            return load_consortium(file)
    raise ConfigError(
        f"There is no consortium file for the state directory {path}.",
        "Name with --state that of `reconsent up`, or RUN/state of a simulation.",
    )


def full_id(directory: StateDirectory, wanted: str) -> str:
    """The id of the withdrawal that begins with ``wanted``.

    Raises
    ------
    WithdrawalError
        If none or several do.
    """
    from reconsent.errors import WithdrawalError
    from server.persistence import Withdrawals

    ids = [record.id for record in Withdrawals(directory).all()]
    found = [wanted] if wanted in ids else [id_ for id_ in ids if wanted and id_.startswith(wanted)]
    if len(found) != 1:
        problem = (
            f"{len(found)} withdrawals begin with '{wanted}'."
            if found
            else f"There is no withdrawal '{wanted}'."
        )
        known = f"There are: {', '.join(ids)}." if ids else "None was ever filed."
        raise WithdrawalError(problem, known)
    return found[0]
