"""The page of a certificate says everything that was signed."""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from pydantic import ValidationError

from cli.certificate.page import bundle_page, page_of
from tests.cli.certificate.bundle_maker import LEAVER, Made
from tests.unlearning.test_signed_certificate import NOON, OFFICER, OPERATOR, certificate
from unlearning.certificate import statement as said
from unlearning.certificate.claim import ClaimLevel
from unlearning.certificate.signed import countersign, issue

EXCEPTIONS = {
    r"files/.*": "The page is one of them, and cannot have its own hash. `certificate show` has all.",
    r"simulation": "Said by `notice`, without which the certificate is refused.",
    r"evidence/\d+/interval/.*": "Said in words by `uncertainty`.",
}
"""Values that the page of a bundle does not show by themselves, and why."""


def full() -> said.Certificate:
    """A certificate in which every field is filled."""
    plain = certificate()
    later = NOON + dt.timedelta(hours=3)
    codes = {
        "channel": "letter",
        "requester_role": "dpo",
        "identity_check": "call-back",
        "agreement": "DUA 7",
    }
    words = {name: f"by {name} words" for name in codes}
    request = plain.request.model_dump() | codes | {
        "extended_at": later, "held_until": dt.date(2028, 2, 29), "words": words,
        "not_recorded": ("the moon",),
        "scope": "patients", "patients": 3,
    }  # fmt: skip
    assert plain.method is not None
    method = plain.method.model_dump() | {"git_commit": "9" * 40, "fab_sha256": "98" * 32}
    (item,) = plain.evidence
    interval = said.Interval(low=-0.1, high=0.2, level=0.95, patients=11)
    item = item.model_copy(update={"interval": interval, "uncertainty": "unsure"})
    utility = item.model_copy(update={"name": "psnr-lost/site-2", "about": said.About.UTILITY})
    return certificate(
        claim_level=ClaimLevel.CERTIFIED,
        bound=said.Bound(
            epsilon=1.5, delta=1e-6, mechanism="descent", assumptions="convex", accountant="rdp 1"
        ),
        request=said.Request(**request),
        method=said.Method(**method),
        evidence=(item, utility),
        ledger=said.LedgerPosition(
            size=9, root="9a" * 32, entry=4, entry_content='{"kind":"withdrawal"}', inclusion=("9b" * 32,)
        ),
        environment={"kind": "deployment", "platform": "Linux", "python": "3.11.2"},
        supersedes=said.Superseded(certificate_id="C-0", issued_at=NOON, payload_sha256="9c" * 32),
    )


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Place and value of everything that is no object or list."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path, value


def others(value: Any) -> Iterator[Any]:
    """Values that may stand in the place of one, if its field takes them."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value * 1.0001, value / 2)
    elif isinstance(value, str):
        moved = re.sub(r"T(\d\d):(\d\d):(\d\d)", r"T\1:\2:41", value)
        yield from (
            moved,
            f"{value}x",
            "5" * 64,
            "2028-03-01",
            "letters",
            "refused",
            "utility",
            "forgetting",
            "simulated",
            "site",
        )


def changed(table: dict[str, Any], path: tuple[str | int, ...]) -> said.Certificate | None:
    """The certificate with another value in one place; ``None`` if nothing else can stand there alone."""
    for value in others(_at(table, path)):
        spoilt = copy.deepcopy(table)
        _at(spoilt, path[:-1])[path[-1]] = value
        if value == _at(table, path):
            continue
        try:
            return said.Certificate.model_validate(spoilt)
        except ValidationError:
            continue
    return None


def _at(table: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        table = table[key]
    return table


def test_no_value_can_change_without_the_page() -> None:
    """Each single value of what is signed, replaced by another: the page differs, with few exceptions."""
    whole = full()
    table = whole.model_dump(mode="json")
    page = bundle_page(whole)
    paths = [path for path, _ in leaves(table)]
    assert len(paths) > 110
    unseen, fixed = [], []
    for path in paths:
        other = changed(table, path)
        name = "/".join(map(str, path))
        if other is None:
            fixed.append(name)
        elif bundle_page(other) == page:
            unseen.append(name)
    assert fixed == ["claim_level"], "it goes together with the bound"
    unexplained = [name for name in unseen if not any(re.fullmatch(p, name) for p in EXCEPTIONS)]
    assert unexplained == []
    # No exception is there that nothing needs.
    for pattern in EXCEPTIONS:
        assert any(re.fullmatch(pattern, name) for name in unseen), pattern


def shown(html: str) -> str:
    """What a browser shows."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html.partition("<body>")[2])).split())


@pytest.mark.parametrize("signatures", [1, 2])
def test_every_value_of_a_real_certificate_is_on_its_page(made: Made, signatures: int) -> None:
    """As it was signed: in the text, or as its machine-readable form; in the text what must be read."""
    whole = made.certificate
    issued = issue(whole, made.operator)
    html = page_of(issued if signatures == 1 else countersign(issued.content, made.officer))
    text, source = shown(html), unescape(html)
    missing = []
    statement = json.loads(said.payload_of(whole))
    for subject in statement.pop("subject"):
        # Those of the predicate again, by other names.
        assert subject["name"].removeprefix("model ") in text
        assert subject["digest"]["sha256"] in text
    # Its text names the site, which the page does not: it has the hash of it.
    content = statement["predicate"]["ledger"].pop("entry_content")
    assert LEAVER in content
    assert hashlib.sha256(b"\x00" + content.encode()).hexdigest() in text
    for path, value in leaves(statement):
        if value is None or isinstance(value, bool) or value == "":
            continue  # no words, or words of its own: the test above has them
        seen = str(value) if isinstance(value, str | int) else repr(value)
        if seen not in source and " ".join(seen.split()) not in text:
            missing.append("/".join(map(str, path)))
    assert missing == []
    assert whole.ledger is not None
    filed = whole.request.filed_at
    for words in (
        f"{filed.day} {filed:%B %Y, %H:%M} UTC", *whole.ledger.inclusion,
        *(f"{name}: {value}" for name, value in whole.environment.items()),
    ):  # fmt: skip
        assert words in text


def test_an_extension_is_shown_with_its_day() -> None:
    """As a time to read, to the minute, beside the new deadline."""
    whole = countersign(issue(full(), OPERATOR).content, OFFICER)
    assert "extended on 1 March 2027, 15:00 UTC" in shown(page_of(whole))
    assert "29 February 2028, when the legal hold" in shown(page_of(whole))
