"""The SuperNode's command line and environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.device import CPU
from client.node.settings import NodeSettings
from client.policy import POLICY_VARIABLE
from client.site_log import LOG_VARIABLE
from reconsent.environment import (
    CONSORTIUM_VARIABLE,
    DEVICE_VARIABLE,
    PHANTOMS_VARIABLE,
    STATE_VARIABLE,
)
from reconsent.errors import ConfigError

QUIET_FLOWER = {
    # Nothing of a hospital's use is reported to Flower's makers, and nothing is installed during a run.
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    # Otherwise the node looks for work once a second, which every message waits for.
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
    # Several threads would change the order of floating-point sums, hence the last bits.
    "OMP_NUM_THREADS": "1",
}
OURS = (
    CONSORTIUM_VARIABLE,
    PHANTOMS_VARIABLE,
    STATE_VARIABLE,
    DEVICE_VARIABLE,
    POLICY_VARIABLE,
    LOG_VARIABLE,
)


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """A program, its arguments (its own name first) and its whole environment, for ``os.execve``."""

    program: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def supernode_program() -> Path:
    """``flower-supernode`` beside the running Python, so of the same installation."""
    return Path(sys.executable).with_name("flower-supernode")


def program_directory(settings: NodeSettings) -> Path:
    """Where the program lies that runs the installed code; see :mod:`client.node.own_code`."""
    return settings.home / "reconsent" / "bin"


def node_command(settings: NodeSettings, environment: Mapping[str, str] = os.environ) -> NodeCommand:
    """How to start the node.

    The consortium file, policy and log are named by the environment, which only this machine sets; of the
    caller's own Reconsent settings none is passed on.

    Raises
    ------
    ConfigError
        If a path cannot be passed to Flower.
    """
    program = str(supernode_program())
    node = [f"site={quoted(settings.name)}"]
    if settings.data is not None:
        node.append(f"data={quoted(str(settings.data))}")
    if settings.device != CPU:
        node.append(f"device={quoted(settings.device)}")
    arguments = [
        program,
        *("--superlink", settings.superlink),
        *("--root-certificates", str(settings.ca)),
        *("--auth-supernode-private-key", str(settings.key)),
        *("--host", "127.0.0.1", "--port", str(settings.runtime_port)),
        *("--node-config", " ".join(node)),
    ]
    if settings.health_port is not None:
        arguments += ["--health-server-address", f"127.0.0.1:{settings.health_port}"]
    passed = {key: value for key, value in environment.items() if key not in OURS}
    # The SuperNode starts its helpers by name, the app among them.
    places = [str(Path(program).parent), passed.get("PATH", os.defpath)]
    if settings.code == "installed":
        places.insert(0, str(program_directory(settings)))
    passed["PATH"] = os.pathsep.join(places)
    passed |= QUIET_FLOWER
    passed[CONSORTIUM_VARIABLE] = str(settings.consortium)
    passed[PHANTOMS_VARIABLE] = str(settings.consortium.parent / "phantoms")
    if settings.policy is not None:
        passed[POLICY_VARIABLE] = str(settings.policy)
    if settings.log_file is not None:
        passed[LOG_VARIABLE] = str(settings.log_file)
    passed["FLWR_HOME"] = str(settings.home)
    return NodeCommand(program, tuple(arguments), passed)


def quoted(value: str) -> str:
    """A value as ``--node-config`` takes it: a TOML string without the quotation mark it stands in.

    Raises
    ------
    ConfigError
        If it cannot be written so.
    """
    if value.isprintable():
        if "'" not in value:
            return f"'{value}'"
        if '"' not in value and "\\" not in value:
            return f'"{value}"'
    raise ConfigError(
        f"Flower cannot take the path {value!r}.", "Use one without quotation marks and control characters."
    )
