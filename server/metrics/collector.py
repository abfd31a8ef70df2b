"""The collector of the server's exporter: reads the state directory at each scrape, and changes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from reconsent import __version__
from reconsent.config import ConsortiumConfig, load_consortium
from reconsent.errors import ReconsentError
from reconsent.exposition import Samples
from server.metrics import catalogue
from server.metrics.certificates import collect_certificates
from server.metrics.evidence import EvidenceMetrics
from server.metrics.ledger import LedgerMetrics
from server.metrics.models import Models
from server.metrics.rounds import Rounds
from server.metrics.runs import Runs
from server.metrics.simulated import Gaps, collect_gaps
from server.metrics.sites import Sites
from server.metrics.view import View
from server.metrics.withdrawals import WithdrawalMetrics
from server.persistence import StateDirectory
from server.persistence.state import DATABASE, explaining_os_errors


class StateCollector(Collector):
    """Shows a state directory to Prometheus, whether a server works on it or not.

    Everything comes from what is recorded, so counters and histograms survive every restart, of runs and of
    the exporter. What is not known is left out; a state that cannot be read shows as
    ``reconsent_state_readable 0``, never as zeros.

    Parameters
    ----------
    path
        The state directory.
    consortium
        The consortium's file; may come to be later. ``None`` to go by the roster alone.
    certificates
        PEM files whose end is of interest.
    gaps
        Says what a simulation on this state measured beside its oracle; ``None`` if it has not.
    """

    def __init__(
        self,
        path: Path,
        *,
        consortium: Path | None = None,
        certificates: Iterable[Path] = (),
        gaps: Callable[[], Gaps | None] | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self._consortium = consortium
        self._certificates = tuple(certificates)
        self._gaps = gaps
        self._lock = threading.Lock()
        self._state: StateDirectory | None = None
        self._opened: object = None
        self._rounds, self._runs, self._sites = Rounds(), Runs(), Sites()
        self._withdrawals, self._models = WithdrawalMetrics(), Models()
        self._evidence = EvidenceMetrics()
        self.ledger = LedgerMetrics()

    def describe(self) -> Iterable[Family]:
        """Nothing: registering it must not read the state."""
        return []

    def collect(self) -> Iterator[Family]:
        """The families of one scrape."""
        yield from self.samples().families()

    def samples(self) -> Samples:
        """The values of one scrape."""
        samples = Samples(catalogue.METRICS)
        samples.set(catalogue.BUILD, 1, __version__, version("flwr"))
        collect_certificates(self._certificates, samples)
        began = time.perf_counter()
        # One at a time: they share the records that were read already.
        with self._lock:
            try:
                self._read(samples)
            except ReconsentError:
                self._close()
                samples.set(catalogue.READABLE, 0)
                # What was found before holds until the same database is read again, with its time beside it.
                self.ledger.tell(samples)
                return samples
            samples.set(catalogue.READABLE, 1)
        samples.set(catalogue.SCRAPE, time.perf_counter() - began)
        return samples

    def unready(self) -> str:
        """Why the state cannot be read, in words; empty if it can."""
        with self._lock:
            try:
                self._open()
            except ReconsentError as error:
                self._close()
                return str(error)
        return ""

    def close(self) -> None:
        """Close the database, and wait for what still reads it."""
        with self._lock:
            self._close()
        self.ledger.wait()

    def _read(self, samples: Samples) -> None:
        state = self._open()
        with state.reading() as session:
            view = View(state, session, self._config())
            sites = self._sites.collect(view, samples)
            self._rounds.read(view)
            self._rounds.collect(samples, sites)
            remaining = frozenset(site for site, known in sites.items() if known.active)
            self._rounds.quality.collect(samples, self._sites.organs, remaining)
            self._rounds.unlearning.collect(samples)
            self._rounds.privacy.collect(samples, remaining)
            self._runs.collect(view, samples)
            self._withdrawals.collect(view, samples)
            self._evidence.collect(view, samples, remaining)
            self._models.collect(view, samples)
            if self._gaps is not None:
                collect_gaps(self._gaps(), view, samples)
            self.ledger.collect(view, samples)

    def _open(self) -> StateDirectory:
        stamp = _identity(self.path / DATABASE)
        if stamp != self._opened:
            # A restored or renewed database is another file under the same name.
            self._close()
            self._opened, self._rounds, self.ledger = stamp, Rounds(), LedgerMetrics()
        if self._state is None:
            self._state = StateDirectory.open(self.path, writable=False)
        return self._state

    def _close(self) -> None:
        if self._state is not None:
            self.ledger.close(self._state)
            self._state = None

    def _config(self) -> ConsortiumConfig | None:
        if self._consortium is None or not self._consortium.is_file():
            return None
        return load_consortium(self._consortium)


def _identity(path: Path) -> tuple[int, int] | None:
    with explaining_os_errors(f"The database {path}"):
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
    return found.st_dev, found.st_ino
