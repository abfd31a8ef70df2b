"""A hospital's own description of its node, ``SITE.toml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from client.device import CPU, DEVICE
from client.settings_file import read_settings
from reconsent.config import Organ, Settings

Address = Annotated[str, StringConstraints(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}$")]
Port = Annotated[int, Field(ge=1, le=65535)]

RUNTIME_PORT = 9094
_PATHS = ("ca", "key", "consortium", "data", "policy", "log", "flower_home")


class NodeSettings(Settings):
    """What ``reconsent site run`` needs; relative paths are relative to the file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="of the site, as in the consortium")
    superlink: Address = Field(description="HOST:PORT of the operator's SuperLink (its Fleet API)")
    ca: Path = Field(description="certificate, PEM, by which the SuperLink is recognised")
    key: Path = Field(description="this node's private key, made by `reconsent site key`")
    consortium: Path = Field(description="this site's own copy of the consortium file")
    organ: Organ | None = Field(default=None, description="if given, it must be that of the consortium file")
    device: str = Field(
        default=CPU, pattern=f"^({DEVICE})$", description="to compute on: cpu, cuda, or cuda:0 by its number"
    )
    data: Path | None = Field(
        default=None, description="directory of fastMRI HDF5 files; empty: as in the consortium file"
    )
    policy: Path | None = Field(default=None, description="what the server may ask; empty: anything")
    log: Path | None = Field(default=None, description="the site's log; empty: beside the policy, or none")
    health_port: Port | None = Field(default=None, description="of a health check on this machine")
    runtime_port: Port = Field(
        default=RUNTIME_PORT, description="between the node and its app, on this machine; one for each node"
    )
    code: Literal["installed", "received"] = Field(
        default="installed", description="run the code installed here, or what the server sends"
    )
    flower_home: Path | None = Field(default=None, description="Flower's own directory; empty: ~/.flwr")

    @property
    def log_file(self) -> Path | None:
        """Where the log is, if there is one."""
        if self.log is not None or self.policy is None:
            return self.log
        return self.policy.with_suffix(".log.jsonl")

    @property
    def home(self) -> Path:
        """Flower's own directory."""
        return self.flower_home or Path.home() / ".flwr"

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Of the SuperLink; an IPv6 address without its brackets."""
        host, _, port = self.superlink.rpartition(":")
        return host.strip("[]"), int(port)


def load_node(path: Path) -> NodeSettings:
    """Read a ``SITE.toml``.

    Raises
    ------
    ConfigError
        If it is missing, is not TOML or does not fit; every problem is listed.
    """
    settings = read_settings(path, NodeSettings, "site")
    base = path.resolve().parent
    given = {key: getattr(settings, key) for key in _PATHS}
    resolved = {
        key: Path(base / value.expanduser()).absolute() for key, value in given.items() if value is not None
    }
    return settings.model_copy(update=resolved)
