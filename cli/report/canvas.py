"""Common ground of the figures: one style, and SVG that needs nothing from outside."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cli.report.palette import INK, MUTED, RULE

# Widths in inches that the page shows at the same scale, so that all text has one size.
NARROW = 4.4
WIDE = 9.0

# Text stays text in the SVG, in the fonts of the page. It is laid out with matplotlib's own DejaVu,
# which is wider than any of these, so that nothing can overflow.
_FONTS = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "reconsent",
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "text.color": INK,
    "text.parse_math": False,  # a $ in a site's name is a $
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A finished figure.

    Attributes
    ----------
    name
        Short name, the ``id`` of the figure in the page.
    source
        ``data:`` address of the picture.
    alt
        What it shows, for those who cannot see it.
    caption
        What to see in it.
    narrow
        The same, drawn for a telephone's width; ``None`` if ``source`` fits there as well.
    """

    name: str
    source: str
    alt: str
    caption: str
    narrow: str | None = None


@contextmanager
def axes(width: float, height: float, *, polar: bool = False) -> Iterator[tuple[Figure, Axes]]:
    """A figure of ``width`` × ``height`` inches with one pair of axes in the report's style."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot(projection="polar" if polar else None)


def svg(figure: Figure) -> str:
    """The figure as a ``data:`` address; equal figures give equal addresses."""
    text = svg_text(figure).replace("'DejaVu Sans'", _FONTS)
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def svg_text(figure: Figure) -> str:
    """The figure as an SVG document; equal figures give equal text."""
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # without the DOCTYPE, which names an address outside
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
