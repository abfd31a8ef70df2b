"""report.html: self-contained, accessible, whole, and the same for the same results."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from cli.report import render_report
from cli.report.palette import BAD, GOOD, INK, MODELS, MUTED, style_of
from cli.report.render import page
from cli.results import Results
from tests.cli.report_page import Page
from tests.cli.results_builder import build_pictures, build_results


@pytest.fixture(scope="module")
def whole() -> str:
    """The report of a run that forgets well, with pictures."""
    return page(build_results(), build_pictures())


@pytest.fixture(scope="module")
def parsed(whole: str) -> Page:
    """The same, parsed."""
    return Page(whole)


def _decoded(source: str) -> bytes:
    return base64.b64decode(source.partition(",")[2], validate=True)


def test_page_needs_nothing_from_outside(whole: str, parsed: Page) -> None:
    """There is no script, and every reference is a data: address, in the pictures as well."""
    assert not parsed.all("script")
    for _, attributes in parsed.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "url(" not in whole
    assert "@import" not in whole
    policy = next(m["content"] for m in parsed.all("meta") if m.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_privacy_is_reported_where_there_is_any(whole: str) -> None:
    """Unit, ε, δ and ceiling stand in one table; without differential privacy there is no such table."""
    account = {"site": "knee", "mode": "sample", "unit": "patient", "epsilon": 2.345678, "delta": 1e-5}
    text = page(build_results(privacy=[account | {"ceiling": 8.0, "rounds_sat_out": 2}]), None)
    _, _, table = text.partition('id="t-privacy"')
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", table.partition("</table>")[0])
    assert cells[7:] == ["knee", "sample", "one patient", "2.346", "1e-05", "8", "2"]
    assert "t-privacy" not in whole


def test_figures_are_whole_pictures(parsed: Page) -> None:
    """Every figure is well-formed SVG or PNG, and no SVG fetches anything."""
    sources = [image["src"] for image in parsed.all("img")] + [s["srcset"] for s in parsed.all("source")]
    kinds = set()
    for source in sources:
        content = _decoded(source)
        kinds.add(source[: source.index(";")])
        if source.startswith("data:image/svg+xml"):
            root = ET.fromstring(content)  # noqa: S314  (our own SVG)
            for element in root.iter():
                for key, value in element.attrib.items():
                    assert not (key.endswith("href") and not value.startswith("#"))
            assert re.search(rb"url\((?!#)", content) is None
        else:
            Image.open(io.BytesIO(content)).verify()
    assert kinds == {"data:image/svg+xml", "data:image/png"}


def test_page_is_accessible(parsed: Page) -> None:
    """Language, one h1, headings without a gap, alt texts, heads of tables with a scope, unique ids."""
    assert parsed.all("html")[0]["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in parsed.all("meta"))
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(len(image.get("alt", "")) > 10 for image in parsed.all("img"))
    assert all(head.get("scope") in ("col", "row") for head in parsed.all("th"))
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in parsed.tags:
        assert attributes.get("aria-labelledby", ids[0]) in ids


@pytest.mark.parametrize("colour", [INK, MUTED, GOOD, BAD, *(style_of(m).colour for m in (*MODELS, "x"))])
def test_contrast(colour: str) -> None:
    """Every colour that carries text or a line has a contrast of 4.5 to 1 or more on white (WCAG AA)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    assert 1.05 / (luminance + 0.05) >= 4.5


def test_every_part_is_there_in_order(parsed: Page) -> None:
    """All figures and sections are in the page, in the order in which a reader needs them."""
    ids = [
        attributes["id"] for tag, attributes in parsed.tags if "id" in attributes and tag in ("h2", "figure")
    ]
    expected = [
        "h-verdict", "accuracies", "h-relearn", "relearning", "h-training", "training-1", "training-4",
        "losses", "h-radar", "radar", "h-pictures", "h-steps", "steps", "h-cost", "costs", "h-sites",
        "h-config", "h-limits",
    ]  # fmt: skip
    assert [name for name in ids if name in expected] == expected
    text = parsed.text
    assert "SIMULATION: not evidence." in text
    assert "All 29 volumes are phantoms" in text
    assert "update norm 31 times its median" in text
    assert "What this does not show" in text
    alts = " ".join(image["alt"] for image in parsed.all("img"))
    for words in (
        "retain-test: original 24.33 dB, oracle 24.99 dB",
        "unlearned: 17.4 dB after 4",
        "Radar chart",
    ):
        assert words in alts
    for organ in ("knee", "brain", "abdomen"):
        for model in ("zero-filled", "original G", "unlearned Gᵤ", "oracle Ĝ"):
            assert f"Error of the {model} reconstruction: {organ}" in alts


def test_text_is_escaped() -> None:
    """Names and reasons are text, never markup, in the page and in its pictures."""
    evil = "<script>alert(1)</script>$x_{$&\"'"
    text = build_results().model_dump_json().replace('"abdomen"', json.dumps(evil))
    content = page(Results.model_validate_json(text), None)
    parsed = Page(content)
    assert not parsed.all("script")
    assert "<script" not in content
    assert evil in "".join(parsed.words)
    for image in parsed.all("img"):
        if image["src"].startswith("data:image/svg"):
            root = ET.fromstring(_decoded(image["src"]))  # noqa: S314  (our own SVG)
            assert not [e for e in root.iter() if e.tag.endswith("script")]


def test_same_results_same_bytes(tmp_path: Path, whole: str) -> None:
    """The report is reproducible: equal results and pictures give equal bytes."""
    path = tmp_path / "report.html"
    render_report(build_results(), build_pictures(), path)
    assert path.read_text(encoding="utf-8") == whole


def test_templates_are_in_the_package() -> None:
    """The templates lie inside the package, so that a wheel carries them."""
    names = {entry.name for entry in files("cli.report").iterdir()}
    assert {"report.html.j2", "report.css.j2"} <= names
