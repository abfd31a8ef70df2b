"""Metrics of the ledger: its length, and whether it is what was written."""

from __future__ import annotations

import datetime as dt
import threading
import time
from logging import WARNING

from flwr.common import log
from sqlalchemy import func, select

from reconsent.errors import ReconsentError, StateError
from reconsent.exposition import Metric, Samples, Topic
from server.metrics.view import View
from server.persistence import StateDirectory
from server.persistence.ledger import Ledger
from server.persistence.tables import LedgerRow

VERIFY_SECONDS = 900.0
"""Between two verifications, which read every entry and check its signature."""

ENTRIES = Metric(
    "reconsent_ledger_entries_total",
    "counter",
    "Entries of the ledger, by kind",
    ("kind",),
    "once the ledger is begun",
)
LAST = Metric(
    "reconsent_ledger_last_entry_timestamp_seconds",
    "gauge",
    "When the newest entry was written, in seconds since 1970",
    (),
    "as above",
)
VERIFIED_AT = Metric(
    "reconsent_ledger_verified_timestamp_seconds",
    "gauge",
    "When the exporter verified the whole ledger last, in seconds since 1970; it does so every quarter of an "
    "hour, against the key that the ledger itself names",
    (),
    "once it was verified",
)
VERIFIED = Metric(
    "reconsent_ledger_verified_entries",
    "gauge",
    "Entries that were sound in that verification",
    (),
    "as above",
)
FAULTS = Metric(
    "reconsent_ledger_faults",
    "gauge",
    "1 if that verification found an entry that is not what was written, else 0; `reconsent ledger verify` "
    "names it",
    (),
    "as above",
)

TOPIC = Topic("Ledger", (ENTRIES, LAST, VERIFIED_AT, VERIFIED, FAULTS))


class LedgerMetrics:
    """Counts entries at each scrape, and verifies all of them now and then while no scrape waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._begun = -VERIFY_SECONDS
        self._found: tuple[float, int, bool] | None = None

    def collect(self, view: View, samples: Samples) -> None:
        """Fill in this topic's metrics."""
        row = LedgerRow
        counted = view.session.execute(select(row.kind, func.count()).group_by(row.kind))
        number = 0
        for kind, count in counted:
            samples.set(ENTRIES, count, kind)
            number += count
        if number == 0:
            return
        newest = view.session.scalar(select(row.at).order_by(row.number.desc()).limit(1))
        samples.set(LAST, _timestamp(newest or ""))
        self._verify_if_due(view.state)
        with self._lock:
            found = self._found
        if found is not None:
            at, sound, faulty = found
            samples.set(VERIFIED_AT, at)
            samples.set(VERIFIED, sound)
            samples.set(FAULTS, faulty)

    def wait(self) -> None:
        """Wait for the verification that is under way, if one is."""
        if self._thread is not None:
            self._thread.join()

    def _verify_if_due(self, state: StateDirectory) -> None:
        running = self._thread is not None and self._thread.is_alive()
        if running or time.monotonic() - self._begun < VERIFY_SECONDS:
            return
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._verify, args=(state,), name="ledger", daemon=True)
        self._thread.start()

    def _verify(self, state: StateDirectory) -> None:
        try:
            ledger = Ledger(state)
            with state.reading() as session:
                key = ledger.public_key(session=session)
                audit = ledger.audit([key] if key is not None else [], session=session)
            found = time.time(), audit.size, not audit.sound
        except StateError as error:
            # The database did not answer, which says nothing of the ledger: the last finding stays, and ages.
            log(WARNING, "The ledger could not be verified now: %s", error.problem)
            return
        except ReconsentError:
            # One that cannot even be read is not what was written.
            found = time.time(), 0, True
        with self._lock:
            self._found = found


def _timestamp(text: str) -> float | None:
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
