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
from server.persistence.own_checkpoints import CHECKPOINT_FILE
from server.persistence.tables import LedgerRow
from server.persistence.verification import OwnCheckpoints, verify_beside
from unlearning.ledger.audit import Auditor

VERIFY_SECONDS = 900.0
"""Between two verifications of the entries that were added, and of their signatures."""

WHOLE_SECONDS = 86400.0
"""Between two verifications of all entries, which find what was altered since."""

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
    "When the exporter verified the ledger last, in seconds since 1970: every quarter of an hour the entries "
    "that were added, against the keys that the ledger itself names",
    (),
    "once it was verified",
)
WHOLE_AT = Metric(
    "reconsent_ledger_whole_verified_timestamp_seconds",
    "gauge",
    "When the exporter verified every entry last, in seconds since 1970: at its start, and once a day",
    (),
    "as above",
)
VERIFIED = Metric(
    "reconsent_ledger_verified_entries",
    "gauge",
    "Entries that were sound in the last verification",
    (),
    "as above",
)
FAULTS = Metric(
    "reconsent_ledger_faults",
    "gauge",
    "1 if the exporter found an entry that is not what was written, or a withdrawal, a step or an act that "
    "is not what its entry says (`reconsent ledger verify` names it), or that the end was cut off: entries "
    "are gone or others that this exporter has found sound before, or that a checkpoint was kept of; else 0",
    (),
    "as above",
)

TOPIC = Topic("Ledger", (ENTRIES, LAST, VERIFIED_AT, WHOLE_AT, VERIFIED, FAULTS))


class LedgerMetrics:
    """Counts entries at each scrape, and verifies them now and then while no scrape waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._begun = -VERIFY_SECONDS
        self._auditor: Auditor | None = None
        self._whole_begun = -WHOLE_SECONDS
        self._whole_at: float | None = None
        self._found: tuple[float, int, bool] | None = None
        self._seen: tuple[int, str] | None = None

    def collect(self, view: View, samples: Samples) -> None:
        """Fill in this topic's metrics."""
        row = LedgerRow
        counted = view.session.execute(select(row.kind, func.count()).group_by(row.kind))
        number = 0
        for kind, count in counted:
            samples.set(ENTRIES, count, kind)
            number += count
        if number == 0 and self._seen is None:
            return
        newest = view.session.scalar(select(row.at).order_by(row.number.desc()).limit(1))
        samples.set(LAST, _timestamp(newest or ""))
        self._verify_if_due(view.state, number)
        self.tell(samples)

    def tell(self, samples: Samples) -> None:
        """Fill in what the last verification found."""
        with self._lock:
            found, whole_at = self._found, self._whole_at
        if found is not None:
            at, sound, faulty = found
            samples.set(VERIFIED_AT, at)
            samples.set(WHOLE_AT, whole_at)
            samples.set(VERIFIED, sound)
            samples.set(FAULTS, faulty)

    def wait(self) -> None:
        """Wait for the verification that is under way, if one is."""
        if self._thread is not None:
            self._thread.join()

    def close(self, state: StateDirectory) -> None:
        """Close ``state`` once no verification reads it, which a scrape does not wait for."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            state.close()
            return

        def later() -> None:
            thread.join()
            state.close()

        threading.Thread(target=later, name="ledger-close", daemon=True).start()

    def _verify_if_due(self, state: StateDirectory, number: int) -> None:
        with self._lock:
            found, seen = self._found, self._seen
        # The verification finds out by itself whether it is shorter: this scrape's view may be an older one.
        shorter = seen is not None and number < seen[0] and not (found and found[2])
        running = self._thread is not None and self._thread.is_alive()
        if running or (time.monotonic() - self._begun < VERIFY_SECONDS and not shorter):
            return
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._verify, args=(state,), name="ledger", daemon=True)
        self._thread.start()

    def _verify(self, state: StateDirectory) -> None:
        began = time.monotonic()
        due = began - self._whole_begun >= WHOLE_SECONDS
        auditor = Auditor() if due or self._auditor is None else self._auditor
        whole = auditor.result.size == 0
        try:
            ledger = Ledger(state)
            in_file = OwnCheckpoints.in_file(state, ledger.named_keys())
            with state.reading() as session:
                keys = ledger.named_keys(session=session)
                # Entries are only ever added: those that were sound are there for good, in this database.
                seen = self._seen
                lost = seen is not None and ledger.root(seen[0], session=session) != seen[1]
                if not ledger.audit_added(auditor, keys, session=session):
                    # It does not go on from there: it was cut off, or altered.
                    auditor, whole = Auditor(), True
                    ledger.audit_added(auditor, keys, session=session)
                result = auditor.result
                verified = verify_beside(state, result, in_file, session=session)
            if lost and seen is not None:
                log(
                    WARNING,
                    "The ledger had %d sound entries, of root %s, which are not all there now: it has %d.",
                    *seen,
                    result.size,
                )
            if not verified.sound:
                log(WARNING, "The ledger, or what it speaks of, was altered. %s", verified.problem)
            elif result.size and not verified.own.all:
                log(
                    WARNING,
                    "Whether the end of the ledger was cut off is not known: %s is gone.",
                    CHECKPOINT_FILE,
                )
            found = time.time(), result.size, lost or not verified.sound
        except StateError as error:
            # The database did not answer, which says nothing of the ledger: the last finding stays, and ages.
            log(WARNING, "The ledger could not be verified now: %s", error.problem)
            return
        except ReconsentError as error:
            # One that cannot even be read is not what was written.
            log(WARNING, "The ledger could not be verified: %s %s", error.problem, error.remedy)
            found = time.time(), 0, True
        except Exception:  # noqa: BLE001 - whatever stands in the database, a fault must not look like none
            log(WARNING, "The ledger could not be verified.", exc_info=True)
            found = time.time(), 0, True
        with self._lock:
            self._found = found
            if not found[2] and found[1]:
                self._seen = found[1], auditor.result.root
            if whole:
                self._whole_begun, self._whole_at = began, found[0]
        # After a fault there is nothing to go on from.
        self._auditor = None if found[2] else auditor


def _timestamp(text: str) -> float | None:
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
