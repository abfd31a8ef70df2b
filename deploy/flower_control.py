"""Flower's command line, as far as an operator of a consortium needs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.run_pb2 import RunStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from httpx import HTTPError, HTTPStatusError

from deploy.layout import CONNECTION, Layout
from reconsent.errors import DeployError
from reconsent.files import write_atomically
from server.node_keys import fingerprint

RunValue = bool | int | float | str
"""What a run's configuration may hold."""

COMMAND_SECONDS = 120.0
"""Time for one command; a busy machine needs seconds to start Python alone."""

# No telemetry, no question for updates, no environment of its own for each run; a proxy of the
# environment must not come between processes of one machine.
SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A SuperNode, as the SuperLink knows it.

    Attributes
    ----------
    node_id
        Flower's number.
    status
        ``registered`` (never seen), ``online``, ``offline`` or ``unregistered`` (refused for ever).
    fingerprint
        SHA-256 of the public key's SubjectPublicKeyInfo (DER), hexadecimal.
    name
        Given at registration.
    """

    node_id: int
    status: str
    fingerprint: str
    name: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run, as the SuperLink knows it.

    Attributes
    ----------
    run_id
        Flower's number.
    status
        ``pending``, ``starting``, ``running``, or ``finished:`` with ``completed``, ``failed``, ``stopped``.
    details
        Why it failed.
    """

    run_id: int
    status: str
    details: str

    @property
    def finished(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status.startswith("finished")


class FlowerControl:
    """Commands to one SuperLink.

    Parameters
    ----------
    home
        ``FLWR_HOME``: the directory with Flower's ``config.toml``, which names the connection.
    """

    def __init__(self, home: Path) -> None:
        self.home = home

    @property
    def config(self) -> Path:
        """Flower's own configuration file."""
        return self.home / "config.toml"

    @property
    def _starter(self) -> str:
        return Layout(self.home.parent.parent).starter

    def connect(self, address: str, root_certificates: Path | None) -> None:
        """Write down how the SuperLink is reached; without certificate, by plain text."""
        connection: dict[str, Any] = {"address": address}
        if root_certificates is None:
            connection["insecure"] = True
        else:
            connection["root-certificates"] = str(root_certificates)
        table = {"superlink": {"default": CONNECTION, CONNECTION: connection}}
        write_atomically(self.config, tomli_w.dumps(table).encode())

    def register_node(self, public_key: Path, name: str) -> int:
        """Let the node with this key (OpenSSH format) connect; returns its id.

        Raises
        ------
        DeployError
            If the key is registered already, or was; or the SuperLink cannot be reached.
        """
        # As Flower's command line does it, without starting Python for each site.
        try:
            key = load_ssh_public_key(public_key.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise DeployError(
                f"{public_key} is no public key in OpenSSH's format: {error}.", "Make the site's key again."
            ) from None
        if not isinstance(key, EllipticCurvePublicKey):
            raise DeployError(
                f"{public_key} is not a key on an elliptic curve, as Flower wants it.",
                "Make the site's key again.",
            )
        request = RegisterNodeRequest(public_key=public_key_to_bytes(key), name=name)
        with self._asking("told to let a node in") as client:
            return int(client.RegisterNode(request).node_id)

    def unregister_node(self, node_id: int) -> None:
        """Refuse a node and its key for ever.

        Raises
        ------
        DeployError
            If there is no such node, or the SuperLink cannot be reached.
        """
        with self._asking("told to refuse a node") as client:
            client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def list_nodes(self) -> list[Node]:
        """Every node that was ever registered.

        Raises
        ------
        DeployError
            If the SuperLink cannot be reached.
        """
        # The command line does not print the keys, by which alone a node can be told; the client it uses
        # does return them.
        with self._asking("asked for its nodes") as client:
            found = client.ListNodes(ListNodesRequest()).nodes_info
        return [Node(n.node_id, n.status, fingerprint(n.public_key), n.name) for n in found]

    def submit_run(self, app: Path, run_config: Mapping[str, RunValue]) -> int:
        """Bundle the app and start a run; returns its id.

        Parameters
        ----------
        app
            Directory with the app's ``pyproject.toml``; see :func:`deploy.application.application_directory`.
        run_config
            In place of the app's own values; only keys that it has.

        Raises
        ------
        DeployError
            If the app cannot be bundled, a key is unknown, or the SuperLink cannot be reached.
        """
        # Flower drops, without a word, what has spaces around the equals sign.
        overrides = [line.replace(" = ", "=", 1) for line in tomli_w.dumps(dict(run_config)).splitlines()]
        arguments = [part for line in overrides for part in ("--run-config", line)]
        return int(self._call("run", str(app), CONNECTION, *arguments)["run-id"])

    def list_runs(self, limit: int | None = None) -> list[Run]:
        """Runs, the newest first.

        Raises
        ------
        DeployError
            If the SuperLink cannot be reached.
        """
        # Whoever watches a run asks every few seconds: the command line takes as long to start alone.
        with self._asking("asked for its runs") as client:
            answer = client.ListRuns(ListRunsRequest(limit=limit))
        runs = sorted(answer.run_dict.values(), key=lambda run: run.pending_at, reverse=True)
        return [Run(run.run_id, _status_text(run.status), run.status.details) for run in runs]

    def stop_run(self, run_id: int) -> None:
        """End a run.

        Raises
        ------
        DeployError
            If there is no such run, it has ended, or the SuperLink cannot be reached.
        """
        with self._asking("told to stop a run") as client:
            stopped = client.StopRun(StopRunRequest(run_id=run_id)).success
        if not stopped:
            raise DeployError(
                f"The SuperLink could not stop run {run_id}.", "Has it ended? `reconsent status` says so."
            )

    def _call(self, *arguments: str) -> dict[str, Any]:
        command = " ".join(("flwr", *arguments[:2]))
        try:
            done = subprocess.run(  # noqa: S603 - no shell, our own arguments
                [executable("flwr"), *arguments, "--format", "json"],
                env=local_environment({**SWITCHES, "FLWR_HOME": str(self.home)}),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeployError(
                f"`{command}` has not ended after {COMMAND_SECONDS:g} s.", "Is the machine overloaded?"
            ) from None
        # A failure is told of in the JSON alone: the exit status is 0 then, too.
        start = done.stdout.find("{")
        try:
            answer: dict[str, Any] = json.loads(done.stdout[start:]) if start >= 0 else {}
        except json.JSONDecodeError:
            answer = {}
        if not answer.get("success"):
            said = str(answer.get("error-message") or done.stderr or done.stdout)
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            reason = " ".join(line for line in lines if not line.startswith("Using SuperLink"))
            remedy = (
                f"Start the consortium: `{self._starter}`."
                if "unavailable" in reason
                else f"The SuperLink's log may say more: {self.home.parent / 'logs'}."
            )
            raise DeployError(f"`{command}` failed: {reason.rstrip('.')}.", remedy)
        return answer

    @contextmanager
    def _asking(self, what: str) -> Iterator[ControlHttpClient]:
        connection = self._connection()
        certificates = connection.get("root-certificates")
        client = ControlHttpClient.from_server_address(
            server_address=str(connection["address"]),
            insecure=bool(connection.get("insecure", False)),
            root_certificates=Path(certificates).read_bytes() if certificates else None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )
        try:
            yield client
        except (HTTPError, OSError) as error:
            refused = isinstance(error, HTTPStatusError) and FlowerError.from_json(error.response.text)
            if refused:
                raise DeployError(
                    f"The SuperLink could not be {what}: {' '.join(_sentences(refused))}",
                    f"The SuperLink's log may say more: {self.home.parent / 'logs'}.",
                ) from None
            raise DeployError(
                f"The SuperLink at {connection['address']} cannot be {what}: {error}.",
                f"Start the consortium: `{self._starter}`.",
            ) from None
        finally:
            client.close()

    def _connection(self) -> dict[str, Any]:
        try:
            table = tomllib.loads(self.config.read_text(encoding="utf-8"))
            connection: dict[str, Any] = table["superlink"][CONNECTION]
        except (OSError, tomllib.TOMLDecodeError, KeyError):
            raise DeployError(
                f"{self.config} does not say how to reach the SuperLink.",
                f"Start the consortium: `{self._starter}`.",
            ) from None
        return connection


def _sentences(error: FlowerError) -> Iterator[str]:
    """What the SuperLink says in public of why it does not."""
    for text in (error.message, error.public_details):
        if text:
            yield f"{text.rstrip('.')}."


def _status_text(status: RunStatus) -> str:
    return f"{status.status}:{status.sub_status}" if status.sub_status else status.status


def executable(name: str) -> str:
    """Path of one of Flower's programs, that of the running Python's environment.

    Raises
    ------
    DeployError
        If it is not there.
    """
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise DeployError(
            f"There is no {name} beside {sys.executable}.",
            "Install Reconsent with its dependencies into this environment again.",
        )
    return str(path)


def local_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process with ``changes``, and with Flower's own programs found first."""
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, **changes}
    environment["PATH"] = os.pathsep.join([scripts, *filter(None, [os.environ.get("PATH")])])
    for key in ("no_proxy", "NO_PROXY"):
        environment[key] = ",".join(filter(None, [os.environ.get(key), "127.0.0.1,localhost"]))
    return environment
