"""Metrics of evidence: the figures recorded about the last unlearning, beside the limits fixed before it."""

from __future__ import annotations

from sqlalchemy import func, select

from reconsent.exposition import Metric, Samples, Topic
from server.accountability import PSNR_LOST
from server.metrics.view import View
from server.persistence.tables import WithdrawalActRow

LOST = Metric(
    "reconsent_evidence_psnr_lost_decibels",
    "gauge",
    "Test PSNR that the last unlearning cost a remaining site, as it is on record for the certificate",
    ("site",),
    "once sites measured before and after an unlearning",
)
LIMIT = Metric(
    "reconsent_evidence_psnr_lost_limit_decibels",
    "gauge",
    "Most that it might cost, as fixed before that unlearning",
    seen_when="as above",
)
AT = Metric(
    "reconsent_evidence_timestamp_seconds",
    "gauge",
    "When those figures were recorded, in seconds since 1970",
    seen_when="as above",
)
CERTIFICATES = Metric("reconsent_certificates_issued_total", "counter", "Certificates of withdrawals issued")

TOPIC = Topic("Evidence", (LOST, LIMIT, AT, CERTIFICATES))


class EvidenceMetrics:
    """Reads what was recorded about the newest withdrawal that has figures."""

    def collect(self, view: View, samples: Samples) -> None:
        """Fill in this topic's metrics."""
        row, session = WithdrawalActRow, view.session
        issued = session.scalar(select(func.count()).where(row.kind == "certificate"))
        samples.set(CERTIFICATES, issued or 0)
        newest = select(row).order_by(row.number.desc()).limit(1)
        figures = session.scalar(newest.where(row.kind == "figures"))
        if figures is None:
            return
        samples.set(AT, figures.at.timestamp())
        for entry in figures.body["figures"]:
            family, _, site = entry["name"].partition("/")
            if family == PSNR_LOST:
                samples.set(LOST, entry["value"], site)
        policy = session.scalar(
            newest.where(
                row.kind == "policy", row.withdrawal == figures.withdrawal, row.number < figures.number
            )
        )
        if policy is not None:
            limit = policy.body.get("limits", {}).get(PSNR_LOST, {})
            samples.set(LIMIT, limit.get("high"))
