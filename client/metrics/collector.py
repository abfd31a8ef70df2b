"""The collector of a site's exporter: its log, its policy, its disk; no data, no quality, no patients."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from client.metrics import catalogue
from client.metrics.log_reader import LogReader
from client.policy import SitePolicy
from client.settings_file import read_settings
from client.site_log import LogError
from reconsent import __version__
from reconsent.errors import ConfigError
from reconsent.exposition import Samples


class SiteCollector(Collector):
    """Shows what a site did with the server's messages, from the site's own record.

    It shows times, sizes and counts. What it never shows, since it never reads it: scans, file names,
    patients, the quality of a model on them; and from the log nothing but closed sets of words.

    Parameters
    ----------
    site
        The site's name.
    log
        Its log; ``None`` if it keeps none.
    policy
        Its policy; ``None`` if it has none.
    authority
        The certificate by which it knows the server.
    """

    def __init__(
        self, site: str, *, log: Path | None = None, policy: Path | None = None, authority: Path | None = None
    ) -> None:
        self.site = site
        self._reader = LogReader(log) if log is not None else None
        self._policy = policy
        self._authority = authority
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Family]:
        """Nothing: registering it must not read anything."""
        return []

    def collect(self) -> Iterator[Family]:
        """The families of one scrape."""
        yield from self.samples().families()

    def samples(self) -> Samples:
        """The values of one scrape."""
        samples = Samples(catalogue.METRICS)
        samples.set(catalogue.BUILD, 1, self.site, __version__)
        samples.set(catalogue.COLLECTED, time.time())
        with self._lock:
            self._collect_log(samples)
        self._collect_policy(samples)
        if self._authority is not None:
            with suppress(OSError, ValueError):
                found = x509.load_pem_x509_certificates(self._authority.read_bytes())
                ends = min(each.not_valid_after_utc for each in found)
                samples.set(catalogue.CA_EXPIRY, ends.timestamp())
        return samples

    def unready(self) -> str:
        """Why there is nothing to show, in words; empty if there is."""
        if self._reader is None:
            return "This site keeps no log: name one in its site.toml."
        try:
            with self._lock:
                self._reader.read()
        except LogError as error:
            return str(error)
        return ""

    def _collect_log(self, samples: Samples) -> None:
        if self._reader is None:
            return
        with suppress(OSError):
            disk = shutil.disk_usage(self._reader.path.parent)
            samples.set(catalogue.DISK_FREE, disk.free)
            samples.set(catalogue.DISK_SIZE, disk.total)
            samples.set(catalogue.LOG_BYTES, self._reader.path.stat().st_size)
        try:
            self._reader.read()
        except LogError:
            samples.set(catalogue.READABLE, 0)
            return
        samples.set(catalogue.READABLE, 1)
        self._reader.collect(samples)

    def _collect_policy(self, samples: Samples) -> None:
        if self._policy is None:
            return
        try:
            policy = read_settings(self._policy, SitePolicy, "policy")
        except ConfigError:
            samples.set(catalogue.POLICY, 0)
            return
        samples.set(catalogue.POLICY, 1)
        samples.set(catalogue.WITHDRAWN, policy.withdrawn)
        samples.set(catalogue.MAY, policy.may_train, "train")
        samples.set(catalogue.MAY, policy.may_be_evaluated, "evaluate")
        samples.set(catalogue.LIMIT, policy.max_rounds_a_day)
