"""Metrics of sites: who takes part, by which keys, and what the server keeps of their updates."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from reconsent.errors import LedgerError
from reconsent.exposition import Metric, Samples, Topic
from server.metrics.view import View
from server.names import MAIN
from server.persistence import Enrolments, Roster, SiteStatus
from server.persistence.ledger_entries import SITE_JOINED, SITE_READMITTED
from server.persistence.tables import LedgerRow
from unlearning.database import ContributionRow
from unlearning.ledger.entries import Entry

SITES = Metric(
    "reconsent_sites",
    "gauge",
    "Sites by status: active, restricted (a withdrawal is under way), withdrawn",
    ("status",),
)
INFO = Metric("reconsent_site_info", "gauge", "1 for each site", ("site", "organ", "status"))
SLICES = Metric(
    "reconsent_site_training_slices",
    "gauge",
    "Training slices that a site said it has when it enrolled",
    ("site",),
    "for active sites, once they were in contact",
)
KEYS = Metric("reconsent_site_keys", "gauge", "Enrolled keys of sites by status", ("status",))
ENTRIES = Metric(
    "reconsent_contribution_cache_entries",
    "gauge",
    "Entries of the contribution cache of a site",
    ("site",),
    "for sites of which anything is kept",
)
BYTES = Metric(
    "reconsent_contribution_cache_bytes",
    "gauge",
    "Bytes that the contribution cache holds of a site",
    ("site",),
    "as above",
)
OLDEST = Metric(
    "reconsent_contribution_cache_oldest_timestamp_seconds",
    "gauge",
    "When the oldest entry of a site was made, in seconds since 1970",
    ("site",),
    "as above",
)
RESIDUAL = Metric(
    "reconsent_residual_contributions",
    "gauge",
    "Entries of the contribution cache of sites whose withdrawal is completed; must be 0",
)

TOPIC = Topic("Sites and their contributions", (SITES, INFO, SLICES, KEYS, ENTRIES, BYTES, OLDEST, RESIDUAL))


@dataclass(frozen=True, slots=True)
class SiteState:
    """What other topics must know of a site.

    Attributes
    ----------
    active
        Whether it may take part.
    admitted
        When it was admitted last, in seconds since 1970: its newest key was enrolled, it was in contact for
        the first time, or it was let in again. 0 where that is not on record, and ``None`` if it has no key
        yet where others have.
    """

    active: bool
    admitted: float | None = 0.0


class Sites:
    """Reads roster, enrolments and the index of contributions."""

    def __init__(self) -> None:
        self.organs: dict[str, str] = {}

    def collect(self, view: View, samples: Samples) -> dict[str, SiteState]:
        """Fill in this topic's metrics.

        Returns
        -------
        By name: the sites of the roster, and of the consortium's file those that were never in contact.
        """
        organs = view.organs()
        statuses = dict.fromkeys(organs, SiteStatus.ACTIVE.value)
        for entry in Roster(view.state).all(session=view.session):
            statuses[entry.site], organs[entry.site] = entry.status.value, entry.organ
            if entry.num_examples and entry.status is SiteStatus.ACTIVE:
                samples.set(SLICES, entry.num_examples, entry.site)
        counts = Counter(statuses.values())
        for status in SiteStatus:
            samples.set(SITES, counts[status.value], status.value)
        self.organs = organs
        for name, site_status in sorted(statuses.items()):
            samples.set(INFO, 1, name, organs[name], site_status)
        keys = Enrolments(view.state).all(session=view.session)
        revoked = [key.revoked_at is not None for key in keys]
        samples.set(KEYS, revoked.count(False), "valid")
        samples.set(KEYS, revoked.count(True), "revoked")
        self._cache(view, samples, {site for site, s in statuses.items() if s == SiteStatus.WITHDRAWN.value})
        admitted = self._joined(view)
        for key in keys:
            admitted[key.site] = max(admitted.get(key.site, 0.0), key.enrolled_at.timestamp())
        unknown = None if keys else 0.0
        return {
            site: SiteState(status == SiteStatus.ACTIVE.value, admitted.get(site, unknown))
            for site, status in statuses.items()
        }

    @staticmethod
    def _joined(view: View) -> dict[str, float]:
        """Site → when it was first in contact, or was let in again, by the ledger."""
        found: dict[str, float] = {}
        row = LedgerRow
        query = select(row.content).where(row.kind.in_((SITE_JOINED, SITE_READMITTED))).order_by(row.number)
        for content in view.session.scalars(query):
            # One that was altered is for the verification to find.
            with suppress(LedgerError, ValueError):
                entry = Entry.of(content)
                found[str(entry.body.get("site"))] = datetime.fromisoformat(entry.at).timestamp()
        return found

    @staticmethod
    def _cache(view: View, samples: Samples, gone: set[str]) -> None:
        row, residual = ContributionRow, 0
        query = select(row.site, func.count(), func.sum(row.bytes), func.min(row.created_at))
        for site, entries, size, oldest in view.session.execute(
            query.where(row.line == MAIN).group_by(row.site)
        ):
            samples.set(ENTRIES, entries, site)
            samples.set(BYTES, float(size or 0), site)
            samples.set(OLDEST, oldest.timestamp(), site)
            residual += entries if site in gone else 0
        samples.set(RESIDUAL, residual)
