"""How the SuperLink is, whichever command started it."""

from __future__ import annotations

from dataclasses import dataclass

from deploy import commands, health
from deploy.layout import SUPERLINK, Layout
from deploy.ports import LOCAL
from deploy.processes import ProcessTable
from reconsent.errors import StateError

_ANY = ("0.0.0.0", "[::]", "::")  # noqa: S104 - nothing listens here; these are what a server was told
"""All of a machine's addresses; whoever asks takes the loopback."""


@dataclass(frozen=True, slots=True)
class SuperLinkHealth:
    """What the SuperLink's health server says.

    Attributes
    ----------
    address
        Of that server, host and port; ``None`` if it was never started here, or is stopped.
    health
        ``serving``, ``not serving``, ``unreachable``; ``unknown`` without an address.
    """

    address: str | None
    health: health.Health | str


def superlink_health(layout: Layout) -> SuperLinkHealth:
    """Ask the SuperLink of this state directory for its health, by the gRPC health protocol.

    ``reconsent up`` keeps the port in its list of processes, ``reconsent server run`` the address in a file.

    Raises
    ------
    StateError
        If the address that was written down cannot be read.
    """
    address = _address(layout)
    return SuperLinkHealth(address, "unknown" if address is None else health.status(address))


def _address(layout: Layout) -> str | None:
    if layout.processes.is_file():
        link = ProcessTable.load(layout.processes).processes.get(SUPERLINK)
        ports = {} if link is None else link.ports
        return commands.address(ports, commands.HEALTH) if commands.HEALTH in ports else None
    try:
        written = layout.health_address.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(
            f"{layout.health_address} cannot be read: {error}.", "Start `reconsent server run` again."
        ) from None
    host, _, port = written.rpartition(":")
    return f"{LOCAL if host in _ANY else host}:{port}"
