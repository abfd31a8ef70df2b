"""A certificate as one page to read: the same content as what was signed, and no more."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined

from reconsent.files import sha256_of
from unlearning.certificate.evidence import About
from unlearning.certificate.signed import SignedCertificate
from unlearning.certificate.statement import Certificate, EvidenceItem, payload_of

LEVELS = {
    "exact_retrain": "Retrained without the site",
    "certified_eps_delta": "Certified removal (ε, δ)",
    "empirical": "Influence reduced, tests passed",
    "participation_ended": "Participation ended",
    "none": "No claim",
}

OUTCOMES = {
    "granted": "granted",
    "granted_in_part": "granted in part",
    "refused": "refused",
    "cancelled": "cancelled by who asked",
    "legal_hold": "on legal hold",
    "pending": "under way",
}


def page_of(signed: SignedCertificate) -> str:
    """The page as HTML: it loads nothing, has no scripts, and forbids the browser to fetch anything.

    The same certificate gives the same bytes.
    """
    return _page(signed.certificate, signed.signatures)


def bundle_page(certificate: Certificate) -> bytes:
    """The page of a bundle, which is signed itself: so it knows neither signatures nor hashes of files."""
    return _page(certificate.model_copy(update={"files": {}}), None).encode()


def _page(certificate: Certificate, signatures: int | None) -> str:
    environment = Environment(
        loader=PackageLoader("cli.certificate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("certificate.html.j2").render(
        c=certificate,
        level=LEVELS[certificate.claim_level.value],
        outcome=OUTCOMES[certificate.outcome],
        signatures=signatures,
        payload_sha256="" if signatures is None else sha256_of(payload_of(certificate)),
        forgetting=[item for item in certificate.evidence if item.about is About.FORGETTING],
        utility=[item for item in certificate.evidence if item.about is About.UTILITY],
        moment=_moment,
        limit=_limit,
        beyond=_beyond,
        number=_number(3),
    )


def _moment(value: dt.datetime | None) -> str:
    return "" if value is None else f"{value.day} {value:%B %Y, %H:%M} UTC"


def _number(digits: int) -> Callable[[float | None], str]:
    return lambda value: "not a number" if value is None else f"{value:.{digits}g}".replace("-", "−")


def _limit(item: EvidenceItem) -> str:
    low, high, show = item.limit_low, item.limit_high, _number(3)
    if low is None and high is None:
        return "none was fixed"
    if low is not None and high is not None:
        return f"{show(low)} to {show(high)} {item.unit}"
    return f"at most {show(high)} {item.unit}" if low is None else f"at least {show(low)} {item.unit}"


def _beyond(item: EvidenceItem) -> bool:
    """Whether a value that met its limit might be one that does not, by chance in the choice of patients."""
    if item.interval is None or not item.passed:
        return False
    low, high = item.limit_low, item.limit_high
    return (low is not None and item.interval.low < low) or (high is not None and item.interval.high > high)
