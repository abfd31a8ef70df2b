"""Line charts as inline SVG: geometry here, marks and words in the template; no script, no style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its name, its place among the lines (for colour and dashes), its points on the canvas."""

    name: str
    place: int
    points: str
    dots: tuple[tuple[float, float], ...]
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart ready for its template.

    Attributes
    ----------
    title, unit
        What is drawn.
    lines
        One a site.
    xs, ys
        Ticks: place on the canvas, and label.
    shades
        Left edge and width of the spans of rounds in which something was unlearned.
    table
        Rows of figures for those who cannot see it: round, then a value or nothing for each line.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    xs: tuple[tuple[float, str], ...]
    ys: tuple[tuple[float, str], ...]
    shades: tuple[tuple[float, float], ...]
    table: tuple[tuple[int, tuple[float | None, ...]], ...]


def chart(
    title: str, unit: str, curves: Mapping[str, Points], shaded: Sequence[tuple[float, float]] = ()
) -> Chart | None:
    """A chart of several curves over rounds; ``None`` if there is not one finite point.

    Parameters
    ----------
    title, unit
        What is drawn.
    curves
        Name → ``(round, value)``; what is not finite is left out.
    shaded
        First and last round of each span to shade.
    """
    kept = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in sorted(curves.items())}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return None
    xs = [x for points in kept.values() for x, _ in points]
    low_x, high_x = min(xs), max(xs)
    ticks_x = _ticks(low_x, high_x, 8, whole=True)
    values = [y for points in kept.values() for _, y in points]
    ticks_y = _ticks(min(values), max(values), 5)
    low_y, high_y = ticks_y[0], ticks_y[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / ((high_x - low_x) or 1)
        up = (y - low_y) / ((high_y - low_y) or 1)
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )

    lines = []
    for number, (name, points) in enumerate(kept.items()):
        dots = tuple(place(x, y) for x, y in points)
        joined = " ".join(f"{x},{y}" for x, y in dots)
        lines.append(
            Line(name, number % 6, joined, dots if len(dots) < 30 else (), points[0][1], points[-1][1])
        )
    spans = []
    for first, last in shaded:
        left = place(max(first - 0.5, low_x), low_y)[0]
        right = place(min(last + 0.5, high_x), low_y)[0]
        if right > left:
            spans.append((left, round(right - left, 1)))
    rounds = sorted({int(x) for x in xs})
    by_round = [dict(points) for points in kept.values()]
    return Chart(
        title,
        unit,
        tuple(lines),
        tuple((place(x, low_y)[0], f"{x:g}") for x in ticks_x if low_x <= x <= high_x),
        tuple((place(low_x, y)[1], f"{y:g}".replace("-", "−")) for y in ticks_y),
        tuple(spans),
        tuple((number, tuple(found.get(number) for found in by_round)) for number in rounds),
    )


def _ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Round numbers that enclose ``low`` and ``high``, at most about ``most``."""
    span = (high - low) or abs(high) or 1.0
    raw = span / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
