"""``report.html``: everything a simulation found, in one file that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cli.report import curves, evidence, figures, palette, radar
from cli.report.limits import limits_of
from cli.report.pictures import Pictures
from cli.report.reconstructions import gallery
from cli.report.tables import all_tables, board, origin
from cli.report.verdict import judge, margins_of
from cli.results import Results
from reconsent.errors import ConfigError
from reconsent.files import write_atomically

_TONES = {
    "good": "✓ Every gap is within its tolerance.",
    "bad": "✗ Not every gap is within its tolerance.",
    "open": "○ Not decided by these measurements.",
}
_OUTCOMES = {
    "no withdrawal": "○ There was nothing to forget.",
    "gained": "○ Forgotten within the tolerances, but not the model that retraining gives.",
}


def render_report(results: Results, pictures: Pictures | None, path: Path) -> None:
    """Write the report of a simulation as one HTML file.

    The page loads nothing: figures are SVG and slices PNG inside it, there are no scripts, and a
    content security policy forbids the browser to fetch anything. The same arguments give the same bytes.

    Parameters
    ----------
    results
        What was measured; its ``accuracy`` must hold the ``original`` model.
    pictures
        Example slices; ``None`` leaves the reconstructions out.
    path
        Where to write; a crash leaves the old file or the new one, never a part.

    Raises
    ------
    ConfigError
        If the results hold no accuracy of the original model.
    OSError
        If the file cannot be written.
    """
    write_atomically(path, page(results, pictures).encode())


def page(results: Results, pictures: Pictures | None) -> str:
    """The report as HTML text.

    Raises
    ------
    ConfigError
        If the results hold no accuracy of the original model.
    """
    if "original" not in results.accuracy:
        raise ConfigError(
            "The results hold no accuracy of the original model, so there is nothing to report.",
            "Fill in accuracy.original before rendering.",
        )
    verdict, margins = judge(results), margins_of(results)
    environment = Environment(
        loader=PackageLoader("cli.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        results=results,
        name=results.consortium.get("name", "unnamed"),
        created=f"{results.created.day} {results.created:%B %Y, %H:%M %Z}",
        verdict=verdict,
        tone=_OUTCOMES.get(verdict.outcome, _TONES[verdict.tone]),
        tolerance={"accuracy": margins.accuracy_margin_db, "relearn": margins.relearn_margin_db},
        origin=origin(results),
        board=board(results),
        drawings=_drawings(results),
        tables=all_tables(results),
        evidence=evidence.section(results),
        gallery=gallery(pictures) if pictures else None,
        consortium=json.dumps(results.consortium, indent=2, ensure_ascii=False),
        limits=limits_of(results),
        ink=palette.INK,
        muted=palette.MUTED,
        rule=palette.RULE,
        good=palette.GOOD,
        bad=palette.BAD,
    )


def _drawings(results: Results) -> dict[str, Any]:
    return {
        "accuracies": figures.accuracies(results),
        "relearning": figures.relearning(results),
        "radar": radar.radar(results),
        "training": curves.training(results),
        "losses": curves.losses(results),
        "steps": figures.steps(results),
        "costs": figures.costs(results),
    }
