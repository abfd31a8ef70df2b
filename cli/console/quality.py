"""Training curves from the recorded rounds, and reconstructions where the run's report has them."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from starlette.responses import Response

from cli.console.charts import Points, chart
from cli.console.visits import Visit
from server.names import MAIN
from server.persistence import RoundLog, RoundRecord

LARGEST_REPORT = 20 * 2**20
_IMAGE = "data:image/png;base64,"
_TITLES = {
    "psnr": ("Image quality on each site's test data", "PSNR, dB"),
    "ssim": ("Similarity on each site's test data", "SSIM"),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A reconstruction, or the map of its error, from the report of the run."""

    source: str
    alt: str
    caption: str


@dataclass(frozen=True, slots=True)
class Strip:
    """The pictures of one slice."""

    title: str
    pictures: tuple[Picture, ...]


def quality(visit: Visit) -> Response:
    """Curves, and example reconstructions."""
    records = RoundLog(visit.state).all(MAIN)
    spans = _unlearning(records)
    drawings = [
        chart("Training loss at each site", "loss", _losses(records), spans),
        chart("Loss on each site's test data", "loss", _figures(records, "loss"), spans),
        *(chart(*_TITLES[name], _figures(records, name), spans) for name in _TITLES),
    ]
    return visit.page(
        "quality.html.j2",
        charts=[drawing for drawing in drawings if drawing is not None],
        strips=reconstructions(visit.console.opened.path.parent / "report.html"),
        rounds=len(records),
    )


def reconstructions(report: Path) -> list[Strip]:
    """The pictures of a run's report; none if there is no report, or no pictures in it."""
    try:
        if report.stat().st_size > LARGEST_REPORT:
            return []
        text = report.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    reader = _Reader()
    reader.feed(text)
    return [Strip(title, tuple(pictures)) for title, pictures in reader.strips if pictures]


class _Reader(HTMLParser):
    """Finds the section of reconstructions in a report of ours, and takes pictures only."""

    def __init__(self) -> None:
        super().__init__()
        self.strips: list[tuple[str, list[Picture]]] = []
        self._inside = False
        self._heading = self._caption = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "section":
            self._inside = found.get("aria-labelledby") == "h-pictures"
        if not self._inside:
            return
        if tag == "h3":
            self._heading = True
            self.strips.append(("", []))
        self._caption = tag == "figcaption"
        source = found.get("src") or ""
        if tag == "img" and self.strips and source.startswith(_IMAGE):
            self.strips[-1][1].append(Picture(source, found.get("alt") or "", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._inside = False
        self._heading = self._heading and tag != "h3"
        self._caption = self._caption and tag != "figcaption"

    def handle_data(self, data: str) -> None:
        if self._heading and self.strips:
            title, pictures = self.strips[-1]
            self.strips[-1] = (title + data, pictures)
        elif self._caption and self.strips and self.strips[-1][1]:
            last = self.strips[-1][1][-1]
            self.strips[-1][1][-1] = Picture(last.source, last.alt, last.caption + data)


def _losses(records: list[RoundRecord]) -> dict[str, Points]:
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for site, outcome in record.sites.items():
            if outcome.loss is not None and outcome.outcome == "ok":
                found.setdefault(site, []).append((record.round, outcome.loss))
    return dict(found)


def _figures(records: list[RoundRecord], name: str) -> dict[str, Points]:
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        evaluation: dict[str, Any] = record.metrics.get("evaluation") or {}
        for site, figures in evaluation.items():
            value = figures.get(name) if isinstance(figures, dict) else None
            if isinstance(value, int | float):
                found.setdefault(site, []).append((record.round, float(value)))
    return dict(found)


def _unlearning(records: list[RoundRecord]) -> list[tuple[float, float]]:
    """First and last round of each span in which only the remaining sites trained."""
    spans: list[tuple[float, float]] = []
    for before, record in zip([None, *records], records, strict=False):
        if record.kind == "train":
            continue
        if spans and before is not None and before.kind != "train":
            spans[-1] = (spans[-1][0], record.round)
        else:
            spans.append((record.round, record.round))
    return spans
