"""The PDF of a certificate says what its page says."""

from __future__ import annotations

import io
import re
from html import unescape
from typing import Any

import pytest
from pypdf import PdfReader

from cli.certificate.page import page_of
from cli.certificate.pdf import pdf_of
from tests.unlearning.test_signed_certificate import NOON, OFFICER, OPERATOR, certificate
from unlearning.certificate import statement as said
from unlearning.certificate.signed import SignedCertificate, countersign, issue

REASON = "Łódź’s <b>request</b>: ε ≤ 8, " + "x" * 200
MANY = {
    "decisions": tuple(said.Decision(at=NOON, what="extended", reason=REASON) for _ in range(40)),
    "simulation": True,
    "notice": said.SIMULATION,
}


def words_of(content: bytes) -> str:
    """What a reader of the PDF sees, without blanks."""
    return "".join("".join(page.extract_text().split()) for page in PdfReader(io.BytesIO(content)).pages)


def made(signatures: int, **changes: Any) -> SignedCertificate:
    """A certificate with one signature or two."""
    issued = issue(certificate(**changes), OPERATOR)
    return issued if signatures == 1 else countersign(issued.content, OFFICER)


@pytest.mark.parametrize(
    ("signatures", "changes"), [(2, {}), (1, {}), (2, MANY)], ids=["whole", "half", "long"]
)
def test_every_word_of_the_page_is_in_it(signatures: int, changes: dict[str, Any]) -> None:
    """Also over several sheets, with long words, letters of other languages, before it is countersigned."""
    signed = made(signatures, **changes)
    found = words_of(pdf_of(signed))
    body = page_of(signed).partition("<body>")[2]
    words = unescape(re.sub(r"<[^>]*>", " ", body)).split()
    assert len(words) > 150
    assert [word for word in words if word not in found] == []
    assert ("Notvalidyet" in found) is (signatures == 1)


def test_it_is_the_same_file_each_time_and_names_its_sheets() -> None:
    """Nothing of when and where it was made is in it; each sheet says whose it is."""
    signed = made(2, **MANY)
    content = pdf_of(signed)
    assert pdf_of(signed) == content
    pages = PdfReader(io.BytesIO(content)).pages
    assert len(pages) > 2
    for number, page in enumerate(pages, start=1):
        assert f"Certificate C-1 of W-1, sheet {number} of {len(pages)}" in page.extract_text()
