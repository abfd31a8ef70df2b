"""How SuperLink and SuperNodes are started: their arguments and their environments."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from client.site_log import LOG_VARIABLE
from deploy.certificates import AUTHORITY, SERVER, SERVER_KEY
from deploy.exporters import EXPORTER_PORTS, exporter_names, is_exporter
from deploy.flower_control import SWITCHES, executable, local_environment
from deploy.keeper import KEEPER, keeper_names
from deploy.layout import SUPERLINK, Layout, supernode
from deploy.ports import LOCAL
from deploy.processes import MARK
from deploy.superlink_database import patient_database
from reconsent.config import ConsortiumConfig
from reconsent.environment import (
    CONSORTIUM_VARIABLE,
    DATABASE_VARIABLE,
    LEDGERS_VARIABLE,
    PHANTOMS_VARIABLE,
    STATE_VARIABLE,
)

API, FLEET, HEALTH, RUNTIME = "api", "fleet", "health", "runtime"
"""Purposes of ports: Flower's commands, SuperNodes, health, and a SuperNode's own ClientApps."""

SUPERLINK_PORTS = (API, FLEET, HEALTH)
SUPERNODE_PORTS = (RUNTIME, HEALTH)

# Looked at every second by default, which a round over gRPC waits for several times. Each look costs both
# processes some 2 ms, also when nothing runs: every 0.05 s, four idle ones took two thirds of a core.
POLLING = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25"}

# Large models pass through the SuperLink and the ServerApp in many threads. Without these, glibc keeps what
# each of them has freed, which is several models' worth.
MEMORY = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}

# What only the server may know: its database's password and the master key of contributions above all.
_OF_THE_SERVER = (STATE_VARIABLE, DATABASE_VARIABLE, "RECONSENT_MASTER_KEY")


def address(ports: Mapping[str, int], purpose: str) -> str:
    """Host and port of one of a process's servers."""
    return f"{LOCAL}:{ports[purpose]}"


def superlink_command(layout: Layout, ports: Mapping[str, int], *, insecure: bool) -> tuple[str, ...]:
    """Program and arguments of the SuperLink."""
    security = (
        ("--insecure",)
        if insecure
        else (
            *("--ssl-ca-certfile", str(layout.tls / AUTHORITY)),
            *("--ssl-certfile", str(layout.tls / SERVER)),
            *("--ssl-keyfile", str(layout.tls / SERVER_KEY)),
            "--enable-supernode-auth",
        )
    )
    return (
        executable("flower-superlink"),
        *security,
        *("--database", patient_database(layout.database(insecure=insecure))),
        *("--host", LOCAL, "--port", str(ports[API])),
        *("--fleet-api-address", address(ports, FLEET)),
        *("--health-server-address", address(ports, HEALTH)),
        "--disable-runtime-dependency-installation",
    )


def supernode_command(
    layout: Layout, site: str, ports: Mapping[str, int], fleet: str, *, insecure: bool
) -> tuple[str, ...]:
    """Program and arguments of a site's SuperNode; ``fleet`` is the SuperLink's address for SuperNodes."""
    security = (
        ("--insecure",)
        if insecure
        else (
            *("--root-certificates", str(layout.tls / AUTHORITY)),
            *("--auth-supernode-private-key", str(layout.private_key(site))),
        )
    )
    # The site's data directory needs no mention: the consortium file beside it has the absolute path.
    return (
        *(sys.executable, "-m", "client.node.launch", str(layout.programs(site))),
        executable("flower-supernode"),
        *security,
        *("--superlink", fleet),
        *("--host", LOCAL, "--port", str(ports[RUNTIME])),
        *("--node-config", f'site="{site}"'),
        *("--health-server-address", address(ports, HEALTH)),
    )


def superlink_environment(layout: Layout) -> dict[str, str]:
    """What the SuperLink and its ServerApp find in their environment."""
    return local_environment({**_common(layout), **MEMORY, STATE_VARIABLE: str(layout.state)})


def supernode_environment(layout: Layout, site: str) -> dict[str, str]:
    """What the ClientApp of ``site`` finds in its environment."""
    # What the environment may have of another consortium is named here. A policy or a device in it, though,
    # is the wish of whoever types, for all sites.
    own = {
        PHANTOMS_VARIABLE: str(layout.sites),
        LOG_VARIABLE: str(layout.site_log(site)),
        LEDGERS_VARIABLE: str(layout.privacy),
    }
    environment = local_environment({**_common(layout), **own})
    for variable in _OF_THE_SERVER:
        environment.pop(variable, None)
    # As at a hospital: the installed app runs, whatever a run sends.
    environment["PATH"] = os.pathsep.join([str(layout.programs(site)), environment["PATH"]])
    return environment


def process_names(config: ConsortiumConfig, sites: list[str], *, metrics: bool = False) -> list[str]:
    """The SuperLink, the SuperNode of each site, the keeper and the exporters, if they are wanted."""
    exporters = exporter_names(sites) if metrics else []
    return [SUPERLINK, *(supernode(site) for site in sites), *keeper_names(config), *exporters]


def ports_of(name: str) -> tuple[str, ...]:
    """Purposes of the ports that the process called ``name`` needs."""
    if name == SUPERLINK:
        return SUPERLINK_PORTS
    if name == KEEPER:
        return ()
    return EXPORTER_PORTS if is_exporter(name) else SUPERNODE_PORTS


def _common(layout: Layout) -> dict[str, str]:
    return {
        **SWITCHES,
        **POLLING,
        "FLWR_HOME": str(layout.flower_home),
        CONSORTIUM_VARIABLE: str(layout.consortium),
        "OMP_NUM_THREADS": "1",
        MARK: str(layout.root),
    }
