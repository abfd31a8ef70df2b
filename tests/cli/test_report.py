"""report.html and the terminal's table: self-contained, accessible, and honest about the numbers."""

from __future__ import annotations

import base64
import functools
import io
import itertools
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cli.report import PictureRow, Pictures, render_report, render_table
from cli.report.limits import limits_of
from cli.report.palette import BAD, GOOD, INK, MODELS, MUTED, style_of
from cli.report.reconstructions import gallery
from cli.report.render import page
from cli.report.verdict import Verdict, judge
from cli.results import Results
from reconsent.errors import ConfigError, DataError
from tests.cli.results_builder import STEPS, Outcome, build_pictures, build_results

VOID = {"meta", "link", "img", "source", "br", "hr", "input"}


class Page(HTMLParser):
    """A parsed page that refuses tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag and its attributes."""
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that the tag was the last one opened."""
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        """Collect what a reader sees."""
        if not self._open or self._open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        """Attributes of every tag of that name."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        """What a reader sees, with single spaces."""
        return " ".join(" ".join(self.words).split())


@functools.cache
def _page_of(outcome: Outcome) -> Page:
    return Page(page(build_results(outcome), None))


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


def _judged(**gaps: float) -> Verdict:
    """Verdict for given gaps of the unlearned model, all others zero."""
    relearn = gaps.pop("relearn", 0.0)
    gap = {"retain_test": 0.0, "forget_test": 0.0, "forget_train": 0.0} | gaps
    relearn_gap = {"cached-ascent": dict.fromkeys(STEPS, 0.0) | {8: relearn}}
    return judge(build_results(oracle_gap={"cached-ascent": gap}, relearn_gap=relearn_gap))


def _without_oracle() -> Results:
    results = build_results().model_dump()
    accuracy = {name: value for name, value in results["accuracy"].items() if name != "oracle"}
    return build_results(accuracy=accuracy, original_gap=None, oracle_gap={}, relearn={}, relearn_gap={})


def _nobody_left() -> Results:
    results = build_results().model_dump()
    stay = {"withdrawn": False, "withdrawn_at_round": None}
    original = results["accuracy"]["original"] | {"forget_test": None, "forget_train": None}
    return build_results(
        sites=[site | stay for site in results["sites"]],
        rounds=results["rounds"][:60],
        models={"original": results["models"]["original"]},
        accuracy={"original": original},
        volumes=(),
        original_gap=None,
        oracle_gap={},
        relearn={},
        relearn_gap={},
        cost={},
        unlearning=None,
        timing={"train_seconds": 10.0, "total_seconds": 12.0},
        withdrawals=(),
    )


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


def test_headline_of_a_run_that_forgets(parsed: Page) -> None:
    """All gaps within their tolerance: the model behaves as if the hospital had never taken part."""
    verdict = judge(build_results("forgets"))
    assert verdict.outcome == "within"
    assert verdict.tone == "good"
    assert "as if hospital knee had never taken part" in verdict.headline
    assert verdict.headline in parsed.text
    findings = " ".join(verdict.findings).replace("\u00a0", " ")
    assert "within 0.21 dB on all three accuracies" in findings
    assert "as fast as the oracle (largest difference +0.60 dB" in findings
    assert "gained 0.73 dB" in findings
    assert "✗" not in parsed.text.replace("✗ taken back", "")


def test_headline_of_a_run_that_does_not_forget() -> None:
    """Accuracy left on the withdrawn organ: the page says so, in the headline, words and marks."""
    verdict = judge(build_results("remembers"))
    assert verdict.outcome == "remembers"
    assert verdict.tone == "bad"
    text = _page_of("remembers").text
    assert "still shows what it learned from hospital knee" in text
    assert "+2.55 dB ✗ still known" in text
    assert "never taken part" not in text
    assert "+2.60 dB ✗ comes back faster" in text


def test_headline_of_a_ruined_model() -> None:
    """Remaining hospitals far below the oracle: that is the headline, although everything is forgotten."""
    verdict = judge(build_results("ruined"))
    assert verdict.outcome == "ruined"
    text = _page_of("ruined").text
    assert "Taking out hospital knee ruined the model for the three remaining hospitals" in text
    assert "−6.15 dB ✗ worse than the oracle" in text
    assert "lost 5.50" in text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("gaps", "outcome"),
    [
        ({}, "within"),
        ({"retain_test": -0.5, "forget_test": 0.5, "forget_train": -0.5, "relearn": 0.75}, "within"),
        ({"forget_test": 0.51}, "remembers"),
        ({"forget_train": 0.51}, "remembers"),
        ({"forget_train": 0.51, "retain_test": -0.6}, "remembers"),
        ({"forget_test": -0.51}, "overshoots"),
        ({"retain_test": -0.51}, "harmed"),
        ({"retain_test": 0.51}, "gained"),
        ({"retain_test": -3.01, "forget_test": 2.0}, "ruined"),
        ({"relearn": 0.76}, "hidden"),
        ({"relearn": -0.76}, "relearns slowly"),
    ],
)
def test_thresholds(gaps: dict[str, float], outcome: str) -> None:
    """Each check decides at its tolerance, in both directions, and the gravest finding leads."""
    assert _judged(**gaps).outcome == outcome


def test_only_within_is_called_good() -> None:
    """No outcome but all gaps within tolerance is shown as a success."""
    for gaps in ({"forget_test": 1.0}, {"relearn": 1.0}, {"retain_test": -1.0}, {"retain_test": 1.0}):
        assert _judged(**gaps).tone != "good"
    assert judge(build_results()).tone == "good"


def test_a_comparison_that_could_not_fail_is_no_success() -> None:
    """If the original itself lies within the tolerances, the verdict is that nothing can be told."""
    gap = {"retain_test": 0.1, "forget_test": 0.2, "forget_train": 0.3}
    curves = dict.fromkeys(("original", "oracle", "unlearned"), dict.fromkeys(STEPS, 20.0))
    zero = dict.fromkeys(STEPS, 0.0)
    results = build_results(
        original_gap=gap,
        oracle_gap={"cached-ascent": gap},
        relearn=curves,
        relearn_gap={"cached-ascent": zero},
    )
    verdict = judge(results)
    assert verdict.outcome == "nothing to find"
    assert verdict.tone == "open"


def test_relearning_not_measured_is_no_success() -> None:
    """Without the relearn gap, knowledge may be hidden, and the headline says that it is unknown."""
    results = build_results(relearn={}, relearn_gap={})
    assert judge(results).outcome == "relearning not measured"
    assert judge(results).tone == "open"
    assert any("Relearning was not measured" in limit for limit in limits_of(results))


def test_run_without_an_oracle(tmp_path: Path) -> None:
    """Without an oracle there is a report, without gaps and without a claim."""
    results = _without_oracle()
    assert judge(results).outcome == "no oracle"
    render_report(results, None, tmp_path / "report.html")
    text = Page((tmp_path / "report.html").read_text()).text
    assert "whether it is forgotten was not measured" in text
    assert "✓ within" not in text


def test_run_in_which_nobody_withdrew() -> None:
    """A plain training run has a report of what there is."""
    results = _nobody_left()
    assert judge(results).outcome == "no withdrawal"
    text = Page(page(results, None)).text
    assert "Four hospitals trained one model together; nobody withdrew" in text
    assert "How it was taken out" not in text


def test_smallest_run() -> None:
    """One round, one relearning step and no pictures make a report without a warning."""
    results = build_results().model_dump()
    curves = {model: {1: curve[4]} for model, curve in results["relearn"].items()}
    rounds = [record for record in results["rounds"] if record["round"] in (60, 66)]
    tiny = build_results(rounds=rounds, relearn=curves, relearn_gap={"cached-ascent": {1: -0.5}}, volumes=())
    text = Page(page(tiny, Pictures(rows=()))).text
    assert "Four hospitals trained one model to reconstruct MR images for one round" in text
    assert "Reconstructions" not in text


def test_other_methods_stand_beside() -> None:
    """A further method has its own row with its own gaps, and does not change the verdict."""
    results = build_results().model_dump()
    tuned = build_results("remembers").model_dump()
    accuracy = results["accuracy"] | {"fine-tuning": tuned["accuracy"]["unlearned"]}
    gaps = results["oracle_gap"] | {"fine-tuning": tuned["oracle_gap"]["cached-ascent"]}
    both = build_results(accuracy=accuracy, oracle_gap=gaps)
    assert judge(both) == judge(build_results())
    text = Page(page(both, None)).text
    assert "fine-tuning another method" in text
    assert "+2.55 dB ✗ still known" in text


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


def test_many_large_pictures_stay_small(tmp_path: Path) -> None:
    """Sixteen sites with noisy 320 × 320 slices still give a report below 6 MB, which says so."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(16):
        truth = rng.random((320, 320))
        names = ("zero_filled", "original", "unlearned", "oracle")
        images = {name: truth + 0.1 * rng.standard_normal(truth.shape) for name in names}
        row = PictureRow(
            site=f"s{number}", organ="knee", withdrawn=False, volume="v", slice=0, truth=truth, images=images
        )
        rows.append(row)
    path = tmp_path / "report.html"
    render_report(build_results(), Pictures(rows=tuple(rows)), path)
    assert path.stat().st_size < 6_000_000
    assert "shown smaller" in path.read_text()


def test_error_maps_share_one_scale() -> None:
    """The same error gives the same colour in every row, whatever the unit of the truth."""
    truth = np.zeros((32, 32))
    truth[8:24, 8:24] = 1.0
    rows = [
        PictureRow(
            site=f"s{unit}", organ="knee", withdrawn=False, volume="v", slice=0, truth=truth * unit,
            images={"original": truth * unit + error * unit},
        )
        for unit, error in ((1.0, 0.1), (1e-4, 0.1), (7.0, 0.05))
    ]  # fmt: skip
    shown = gallery(Pictures(rows=tuple(rows)))
    assert shown is not None
    maps = [_decoded(error.source) for strip in shown.strips for _, error in strip.columns if error]
    assert maps[0] == maps[1]
    brightest = [np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).sum() for png in maps]
    assert brightest[2] < brightest[1]
    assert rows[0].psnr("original") == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("truth", "image", "message"),
    [
        (np.zeros((8, 8)), np.zeros((8, 8)), "not a finite image"),
        (np.ones((8, 8)), np.ones((8, 9)), r"\(8, 9\)"),
        (np.ones((8, 8)), np.full((8, 8), np.nan), "NaN"),
    ],
)
def test_bad_pictures_are_refused(truth: Any, image: Any, message: str) -> None:
    """An empty truth, another shape or NaN is refused with the site, volume and slice."""
    with pytest.raises(DataError, match=message) as caught:
        PictureRow(
            site="s",
            organ="knee",
            withdrawn=False,
            volume="v7",
            slice=3,
            truth=truth,
            images={"oracle": image},
        )
    assert "slice 3 of volume 'v7' of site 's'" in caught.value.problem


def test_original_is_required() -> None:
    """Without the original's accuracy there is nothing to report, and the error says so."""
    with pytest.raises(ConfigError, match="original model"):
        page(build_results(accuracy={}), None)


def test_templates_are_in_the_package() -> None:
    """The templates lie inside the package, so that a wheel carries them."""
    names = {entry.name for entry in files("cli.report").iterdir()}
    assert {"report.html.j2", "report.css.j2"} <= names


@pytest.mark.parametrize("outcome", ["forgets", "remembers", "ruined"])
def test_terminal_table_fits(outcome: Outcome) -> None:
    """The table for the terminal is at most 80 columns wide and cuts nothing off."""
    console = Console(width=80, file=io.StringIO(), color_system=None)
    results = build_results(outcome)
    console.print(render_table(results))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert judge(results).headline in text
    assert "SIMULATION: not evidence" in text
    assert "…" not in text
    assert ("✗" in text) == (outcome != "forgets")
    assert "24.33" in text
