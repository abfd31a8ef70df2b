"""A certificate as one page to read: the same content as what was signed, and no more."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from reconsent.files import sha256_of
from unlearning.certificate.evidence import About
from unlearning.certificate.signed import SignedCertificate
from unlearning.certificate.statement import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Certificate,
    EvidenceItem,
    payload_of,
)
from unlearning.ledger.merkle import leaf_hash

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
        forms=(PAYLOAD_TYPE, STATEMENT_TYPE, PREDICATE_TYPE),
        # Not its text: the page is for those, too, who must not learn which site it was.
        leaf="" if certificate.ledger is None else leaf_hash(certificate.ledger.entry_content.encode()).hex(),
        moment=_moment,
        day=lambda value: f"{value.day} {value:%B %Y}",
        coded=_coded,
        limit=_limit,
        beyond=_beyond,
        number=_number(3),
    )


# What is rounded or put in words for a reader is beside it as it was signed, in the element that HTML has
# for this: a time with its seconds, a number with all digits, a word's code.


def _moment(value: dt.datetime | None) -> Markup:
    if value is None:
        return Markup()
    signed = value.isoformat().replace("+00:00", "Z")
    value = value.astimezone(dt.UTC)
    return Markup('<time datetime="{}">{} {} UTC</time>').format(signed, value.day, f"{value:%B %Y, %H:%M}")


def _coded(code: str | None, words: str | None) -> Markup:
    """Words for a code; the code itself where there are none."""
    shown = words or code or ""
    return escape(shown) if code is None else Markup('<data value="{}">{}</data>').format(code, shown)


def _number(digits: int) -> Callable[[float | None], Markup]:
    def shown(value: float | None) -> Markup:
        if value is None:
            return Markup("not a number")
        rounded = f"{value:.{digits}g}".replace("-", "−")
        return Markup('<data value="{}">{}</data>').format(repr(value), rounded)

    return shown


def _limit(item: EvidenceItem) -> Markup:
    low, high, show = item.limit_low, item.limit_high, _number(3)
    if low is None and high is None:
        return Markup("none was fixed")
    if low is not None and high is not None:
        return Markup("{} to {} {}").format(show(low), show(high), item.unit)
    words, bound = ("at most", high) if low is None else ("at least", low)
    return Markup("{} {} {}").format(words, show(bound), item.unit)


def _beyond(item: EvidenceItem) -> bool:
    """Whether a value that met its limit might be one that does not, by chance in the choice of patients."""
    if item.interval is None or not item.passed:
        return False
    low, high = item.limit_low, item.limit_high
    return (low is not None and item.interval.low < low) or (high is not None and item.interval.high > high)
