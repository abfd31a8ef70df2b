"""The SuperLink of a consortium whose sites are elsewhere: one process in the foreground, for a supervisor.

`reconsent up` runs everything on one machine and lets the processes go their way. Where systemd or a
container runtime watches the SuperLink, and the SuperNodes are at the hospitals, this is started instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy import commands
from deploy.certificates import AUTHORITY, SERVER, SERVER_KEY, certificate_statuses, check_certificates
from deploy.continuity import check_continuity, check_no_server, hold_superlink
from deploy.flower_control import FlowerControl, executable
from deploy.housekeeping import tidy
from deploy.layout import SUPERLINK, Layout
from deploy.local_consortium import LocalConsortium
from deploy.ports import LOCAL, is_free
from deploy.processes import MARK
from deploy.superlink_database import patient_database
from reconsent.config import ConsortiumConfig, dump_consortium, load_consortium
from reconsent.errors import DeployError
from reconsent.files import write_atomically
from server.persistence.state import explaining_os_errors

_ALONE = (
    "training.min-sites is 1: a round that one hospital alone answers hands its very parameters to all "
    "others. Set it to 2 or more."
)
API_PORT, FLEET_ADDRESS, HEALTH_ADDRESS = 8000, "0.0.0.0:9092", "127.0.0.1:9099"


@dataclass(frozen=True, slots=True)
class SuperLinkSettings:
    """How the SuperLink is run.

    Attributes
    ----------
    state
        The state directory.
    consortium
        A consortium file, or the name of a preset.
    tls
        Directory with ``ca.crt``, ``server.pem`` and ``server.key``; ``None`` for the one in the state
        directory. The authority's key is not needed here, and better not there.
    fleet_address
        Where SuperNodes connect, host and port; the only one that others need to reach.
    api_port
        Of Flower's commands, which ask for no password: always on the loopback.
    health_address
        Of the gRPC health server, without TLS; it tells nothing but that the process is up.
    """

    state: Path
    consortium: str
    tls: Path | None = None
    fleet_address: str = FLEET_ADDRESS
    api_port: int = API_PORT
    health_address: str = HEALTH_ADDRESS


@dataclass(frozen=True, slots=True)
class SuperLinkStart:
    """What is to be executed.

    Attributes
    ----------
    command
        Program and arguments.
    environment
        Its whole environment.
    warnings
        What deserves attention before long.
    layout, consortium
        Where the messages of former runs are, and for how long contributions are kept.
    settings, tls
        What it was made of, and where the certificates are.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    warnings: tuple[str, ...]
    layout: Layout
    consortium: ConsortiumConfig
    settings: SuperLinkSettings
    tls: Path


def prepare_superlink(settings: SuperLinkSettings) -> SuperLinkStart:
    """Check everything; nothing is written.

    Certificates are not made here: whoever makes them decides by which names the sites reach the server.

    Raises
    ------
    ConfigError
        If the consortium file is wrong.
    DeployError
        If the certificates are missing, expired or not good for the loopback, a port is taken, a SuperLink
        runs on the same state, or the state holds another consortium's models.
    """
    config = load_consortium(settings.consortium)
    layout = Layout(settings.state.resolve())
    tls = layout.tls if settings.tls is None else settings.tls.absolute()
    warnings = check_certificates(tls)
    if LOCAL not in certificate_statuses(tls)[1].hosts:
        raise DeployError(
            f"The certificate {tls / SERVER} is not good for {LOCAL}, by which the SuperLink's own processes "
            "reach it.",
            f"Add {LOCAL} to its alternative names; `reconsent certs make` always does.",
        )
    if any(part.pid is not None for part in LocalConsortium(layout.state).describe()):
        raise DeployError(
            f"`reconsent up` runs a consortium in {layout.state}.", "Stop it first: `reconsent down`."
        )
    check_no_server(layout)
    for address in (f"{LOCAL}:{settings.api_port}", settings.fleet_address, settings.health_address):
        _check_free(address)
    check_continuity(layout, config)
    if config.training.min_sites < 2:
        warnings.append(_ALONE)
    # Without the mark of `reconsent up` neither it nor `reconsent down` takes this for a leftover.
    environment = commands.superlink_environment(layout)
    environment.pop(MARK, None)
    command = _command(layout, tls, settings)
    return SuperLinkStart(command, environment, tuple(warnings), layout, config, settings, tls)


def settle_superlink(start: SuperLinkStart) -> None:
    """Write down what ``reconsent train`` and the like will look for.

    Raises
    ------
    StateError
        If the state directory cannot be used.
    """
    layout, settings = start.layout, start.settings
    layout.make()
    with explaining_os_errors(f"The state directory {layout.state}"):
        write_atomically(layout.consortium, dump_consortium(start.consortium).encode())
        write_atomically(layout.health_address, f"{settings.health_address}\n".encode())
        # Of an earlier `reconsent up`; without it, hints name the command that is in use here now.
        layout.processes.unlink(missing_ok=True)
        FlowerControl(layout.flower_home).connect(f"{LOCAL}:{settings.api_port}", start.tls / AUTHORITY)


def run_superlink(start: SuperLinkStart) -> None:
    """Become the SuperLink: signals and the exit status are its own from here on.

    No run outlives a SuperLink, so whatever messages its database holds are of no more use, and are removed.

    Raises
    ------
    DeployError
        If another SuperLink was started here meanwhile, the program cannot be executed, or the database not
        be purged; otherwise this does not return.
    StateError
        If the state directory cannot be used.
    """
    start.layout.make()
    hold_superlink(start.layout)
    settle_superlink(start)
    tidy(start.layout, start.consortium)
    try:
        os.execve(start.command[0], start.command, dict(start.environment))  # noqa: S606 - no shell wanted
    except OSError as error:
        raise DeployError(
            f"{SUPERLINK} cannot be started: {start.command[0]}: {error.strerror}.",
            "Install Reconsent with its dependencies again.",
        ) from None


def _command(layout: Layout, tls: Path, settings: SuperLinkSettings) -> tuple[str, ...]:
    return (
        executable("flower-superlink"),
        *("--ssl-ca-certfile", str(tls / AUTHORITY)),
        *("--ssl-certfile", str(tls / SERVER)),
        *("--ssl-keyfile", str(tls / SERVER_KEY)),
        "--enable-supernode-auth",
        *("--database", patient_database(layout.database(insecure=False))),
        *("--host", LOCAL, "--port", str(settings.api_port)),
        *("--fleet-api-address", settings.fleet_address),
        *("--health-server-address", settings.health_address),
        "--disable-runtime-dependency-installation",
    )


def _check_free(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise DeployError(
            f"'{address}' is not an address to listen on.", "Give host and port, such as 0.0.0.0:9092."
        )
    # The check knows IPv4 only; Flower itself complains of others.
    if ":" not in host and not is_free(int(port), host=host):
        raise DeployError(
            f"{address} cannot be listened on: the port is taken, or the address is not this machine's.",
            "Stop what listens there (is a SuperLink running already?), or choose another.",
        )
