"""Where everything of a deployment lies, below the state directory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.persistence.state import explaining_os_errors

SUPERLINK = "superlink"
"""Name of the SuperLink's process."""

CONNECTION = "consortium"
"""Name under which Flower's command line knows the SuperLink."""


def supernode(site: str) -> str:
    """Name of the process that is the SuperNode of ``site``."""
    return f"supernode-{site}"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a deployment.

    Attributes
    ----------
    state
        The state directory; absolute, without symbolic links: processes are known by it.
    """

    state: Path

    @property
    def root(self) -> Path:
        """Everything but the server's own state."""
        return self.state / "deployment"

    @property
    def consortium(self) -> Path:
        """The consortium file with every default spelled out."""
        return self.root / "consortium.toml"

    @property
    def tls(self) -> Path:
        """Certification authority and server certificate."""
        return self.root / "tls"

    @property
    def keys(self) -> Path:
        """Key pairs of the SuperNodes."""
        return self.root / "keys"

    @property
    def flower_home(self) -> Path:
        """Flower's own directory (``FLWR_HOME``)."""
        return self.root / "flower"

    @property
    def superlink(self) -> Path:
        """The SuperLink's databases."""
        return self.root / "superlink"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.root / "logs"

    @property
    def sites(self) -> Path:
        """Phantoms of sites without data."""
        return self.root / "sites"

    @property
    def app(self) -> Path:
        """The Flower app, if it has to be put together from installed packages."""
        return self.root / "app"

    @property
    def processes(self) -> Path:
        """What was started, with its ports."""
        return self.root / "processes.json"

    @property
    def superlink_lock(self) -> Path:
        """Held by ``reconsent server run`` for as long as its SuperLink lives."""
        return self.root / "superlink.lock"

    @property
    def health_address(self) -> Path:
        """Where the SuperLink of ``reconsent server run`` tells how it is; host and port."""
        return self.root / "health-address"

    @property
    def starter(self) -> str:
        """The command that starts what runs here: ``reconsent up``, or ``reconsent server run``.

        ``up`` keeps a list of its processes, and ``server run`` removes it; both write the consortium.
        """
        alone = self.consortium.is_file() and not self.processes.is_file()
        return "reconsent server run" if alone else "reconsent up"

    @property
    def lock(self) -> Path:
        """Held while processes are started or stopped."""
        return self.root / "deployment.lock"

    @property
    def metrics_targets(self) -> Path:
        """Where the exporters are, for Prometheus."""
        return self.root / "metrics-targets.json"

    def site_log(self, site: str) -> Path:
        """The log that the site itself keeps of the server's messages."""
        return self.logs / f"site-{site}.jsonl"

    @property
    def privacy(self) -> Path:
        """The privacy ledgers that the sites themselves keep."""
        return self.root / "privacy"

    def programs(self, site: str) -> Path:
        """What the SuperNode of a site finds before Flower's own programs."""
        return self.root / "programs" / site

    def private_key(self, site: str) -> Path:
        """The private key of a site's SuperNode."""
        return self.keys / site

    def public_key(self, site: str) -> Path:
        """The public key of a site's SuperNode."""
        return self.keys / f"{site}.pub"

    def log(self, name: str) -> Path:
        """The log of the process called ``name``."""
        return self.logs / f"{name}.log"

    def database(self, *, insecure: bool) -> Path:
        """The SuperLink's database; nodes without keys are kept apart from those with."""
        return self.superlink / ("insecure.db" if insecure else "state.db")

    def make(self) -> None:
        """Make every directory, readable by its owner only, and remove what a killed run wrote half.

        Raises
        ------
        StateError
            If one cannot be made.
        """
        with explaining_os_errors(f"The state directory {self.state}"):
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in self._directories():
                directory.mkdir(mode=0o700, exist_ok=True)
                directory.chmod(0o700)
            for directory in (self.root, self.tls, self.keys):
                for part in directory.glob(".*.part"):
                    part.unlink(missing_ok=True)

    def _directories(self) -> Iterator[Path]:
        yield self.root
        yield from (
            self.tls,
            self.keys,
            self.flower_home,
            self.superlink,
            self.logs,
            self.sites,
            self.privacy,
        )
