"""Metrics of evidence: what is on record about the last unlearning, beside the limits fixed before it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlalchemy import func, select

from reconsent.errors import SignatureError
from reconsent.exposition import Metric, Samples, Topic
from server.accountability import ORACLE_GAP, PSNR_LOST, RELEARN_GAP
from server.metrics.view import View
from server.persistence.tables import CertificateRow, WithdrawalActRow, WithdrawalRow
from unlearning.certificate.signed import read_unverified
from unlearning.certificate.statement import Certificate, EvidenceItem

PARTS = ("retain-test", "forget-test", "forget-train")
FAMILIES = (PSNR_LOST, ORACLE_GAP, RELEARN_GAP, "other")
MOST_STEPS = 8
"""Points of the relearn gap's curve that are shown: a file with figures may name as many as it likes."""

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
    "Most test PSNR that the last unlearning might cost a remaining site, as fixed before it",
    seen_when="as above",
)
AT = Metric(
    "reconsent_evidence_timestamp_seconds",
    "gauge",
    "When the figures of what the last unlearning cost were recorded, in seconds since 1970",
    seen_when="as above",
)
ORACLE = Metric(
    "reconsent_evidence_oracle_gap_decibels",
    "gauge",
    "PSNR of the unlearned model less that of the model retrained without the site, on retain-test, "
    "forget-test and forget-train, by the newest certificate of the newest withdrawal of which one has "
    "figures",
    ("part",),
    "if a certificate was issued with such figures: those of a simulation, or from a file",
)
RELEARN = Metric(
    "reconsent_evidence_relearn_gap_decibels",
    "gauge",
    "PSNR of the unlearned model less that of the model retrained without the site, after both were "
    "fine-tuned for so many steps on fresh images of the withdrawn organ, by the same certificate as the "
    f"oracle gap; the first {MOST_STEPS} numbers of steps",
    ("steps",),
    "as above",
)
GAP_LIMIT = Metric(
    "reconsent_evidence_gap_limit_decibels",
    "gauge",
    "Most that a gap to the retrained model might be, in either direction, as fixed before the unlearning, "
    "by family (oracle-gap, relearn-gap)",
    ("family",),
    "as above",
)
PASSED = Metric(
    "reconsent_evidence_passed",
    "gauge",
    "1 if every figure of a family in the newest certificate with figures is within the limit fixed before, "
    "0 if one is beyond it or had none; by family (psnr-lost, oracle-gap, relearn-gap, or other)",
    ("family",),
    "for families of which that certificate has figures",
)
CLAIM = Metric(
    "reconsent_certificate_claim_info",
    "gauge",
    "1, with what the newest certificate claims, and whether it is of a simulation (yes or no)",
    ("claim_level", "simulation"),
    "once a certificate was issued",
)
ISSUED_AT = Metric(
    "reconsent_certificate_issued_timestamp_seconds",
    "gauge",
    "When the newest certificate was issued, in seconds since 1970",
    seen_when="as above",
)
CERTIFICATES = Metric("reconsent_certificates_issued_total", "counter", "Certificates of withdrawals issued")

TOPIC = Topic(
    "Evidence",
    (LOST, LIMIT, AT, ORACLE, RELEARN, GAP_LIMIT, PASSED, CLAIM, ISSUED_AT, CERTIFICATES),
)

_STEPS = re.compile(rf"{RELEARN_GAP}/(\d{{1,6}})-steps")


class EvidenceMetrics:
    """Reads what is on record about the newest withdrawals that have figures, and the newest certificate."""

    def __init__(self) -> None:
        self._known: dict[str, Certificate] = {}

    def collect(self, view: View, samples: Samples, remaining: frozenset[str]) -> None:
        """Fill in this topic's metrics, of sites for ``remaining`` ones only."""
        row, session = WithdrawalActRow, view.session
        issued = session.scalar(select(func.count()).where(row.kind == "certificate"))
        samples.set(CERTIFICATES, issued or 0)
        self._measured_at_sites(view, samples, remaining)
        of = CertificateRow
        newest = session.scalar(select(of.id).order_by(of.issued_at.desc(), of.id).limit(1))
        certificate = None if newest is None else self._certificate(view, newest)
        if certificate is not None:
            samples.set(CLAIM, 1, certificate.claim_level.value, "yes" if certificate.simulation else "no")
            samples.set(ISSUED_AT, certificate.issued_at.timestamp())
        # One of a refused request, say, has no figures, and says nothing of the last unlearning.
        measured = next((found for found in self._certificates(view) if found.evidence), None)
        if measured is not None:
            _certified(measured, samples)

    @staticmethod
    def _measured_at_sites(view: View, samples: Samples, remaining: frozenset[str]) -> None:
        row, session = WithdrawalActRow, view.session
        newest = select(row).order_by(row.number.desc()).limit(1)
        figures = session.scalar(newest.where(row.kind == "figures"))
        if figures is None:
            return
        samples.set(AT, figures.at.timestamp())
        for entry in figures.body["figures"]:
            family, _, site = entry["name"].partition("/")
            if family == PSNR_LOST and site in remaining:
                samples.set(LOST, entry["value"], site)
        policy = session.scalar(
            newest.where(
                row.kind == "policy", row.withdrawal == figures.withdrawal, row.number < figures.number
            )
        )
        if policy is not None:
            limit = policy.body.get("limits", {}).get(PSNR_LOST, {})
            samples.set(LIMIT, limit.get("high"))

    def _certificates(self, view: View) -> Iterator[Certificate]:
        """The newest of each withdrawal, the newest withdrawal first; without those that cannot be read."""
        row, withdrawal = CertificateRow, WithdrawalRow
        found = view.session.execute(
            select(row.withdrawal, row.id)
            .join(withdrawal, withdrawal.id == row.withdrawal)
            .order_by(withdrawal.number.desc(), row.issued_at.desc(), row.id)
        )
        seen: set[str] = set()
        for of, id_ in found:
            if of not in seen:
                seen.add(of)
                certificate = self._certificate(view, id_)
                if certificate is not None:
                    yield certificate

    def _certificate(self, view: View, id_: str) -> Certificate | None:
        """One that was issued; read once, since what it says does not change when it is countersigned."""
        if id_ not in self._known:
            row = CertificateRow
            content = view.session.scalar(select(row.content).where(row.id == id_)) or ""
            try:
                self._known[id_] = read_unverified(content.encode()).certificate
            except SignatureError:
                # Not to be read by this release: then its figures are unknown, and all else is shown.
                return None
        return self._known[id_]


def _certified(certificate: Certificate, samples: Samples) -> None:
    steps: dict[int, EvidenceItem] = {}
    passed: dict[str, bool] = {}
    for item in certificate.evidence:
        family, _, part = item.name.partition("/")
        family = family if family in FAMILIES else "other"
        passed[family] = passed.get(family, True) and item.passed
        if family == ORACLE_GAP and part in PARTS:
            samples.set(ORACLE, item.value, part)
        if family in (ORACLE_GAP, RELEARN_GAP):
            samples.set(GAP_LIMIT, item.limit_high, family)
        if found := _STEPS.fullmatch(item.name):
            steps[int(found[1])] = item
    for number in sorted(steps)[:MOST_STEPS]:
        samples.set(RELEARN, steps[number].value, str(number))
    for family, within in sorted(passed.items()):
        samples.set(PASSED, within, family)
