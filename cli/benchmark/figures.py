"""The benchmark's figures: cost against distance from the oracle, and the paper's radar chart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from cli.benchmark.score import GAPS, Row, dominated
from cli.benchmark.standing import OURS
from cli.report.canvas import WIDE, axes, svg_text
from cli.report.palette import INK, MUTED

_COLOURS = ("#0068a8", "#b84a00", "#00775a", "#8a3f73", "#5b6673", "#7a6200")
_MARKERS = "oDs^vPX*"
_COSTS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500)
_DISTANCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_LEAST = 0.5
"""Per cent; what costs less, or nothing, is drawn here."""
_NEAREST = 0.01
"""dB; what is nearer, as an oracle itself would be, is drawn here."""
_NEARLY = 1.1
"""Costs within so much of each other are drawn side by side."""
_APART = 1.035
"""Between two of them, on the logarithmic axis."""
_FRONTS = {False: "--", True: ":"}
"""Whether the leaving site is asked → the line through the methods that none of their kind beats."""
_SHOWN = 6
"""Methods in the radar chart."""
_FARTHEST = 3
"""dB; what is farther from the oracle is drawn at the rim of the radar chart, or at its centre."""


def pareto(rows: Sequence[Row]) -> str:
    """SVG: each method's cost over the training's, and its distance from the oracle in dB; both logarithmic.

    Methods of about one cost stand side by side there, the nearest first, or nobody could tell one from the
    other. Methods that no other one of their kind beats in both are filled, and joined by a line.
    """
    beaten, places = dominated(rows), side_by_side(rows)
    with axes(WIDE, 4.8) as (figure, ax):
        # Before anything is drawn, or bars that reach below zero would be lost.
        ax.set_xscale("log")
        ax.set_yscale("log", nonpositive="clip")
        for kind, line in _FRONTS.items():
            front = [r for r in rows if r.cooperating == kind and r.method not in beaten and not r.failures]
            _join(ax, sorted((places[r.method], _distance(r)) for r in front), line)
        for number, row in enumerate(rows):
            colour, marker = _look(number)
            ax.errorbar(
                places[row.method],
                _distance(row),
                yerr=row.score.deviation,
                color=colour,
                marker=marker,
                ms=7,
                lw=0.8,
                capsize=2,
                ls="none",
                mfc="none" if row.method in beaten else colour,
                label=f"{row.method} (asks the site)" if row.cooperating else row.method,
            )
        cheapest, dearest = min(map(_percent, rows)) / 1.5, 1.5 * max(map(_percent, rows))
        ax.set_xlim(cheapest, dearest)
        costs = [x for x in _COSTS if cheapest <= x <= dearest]
        ax.set_xticks(costs, [f"{x:g}" for x in costs])
        low = min(map(_distance, rows)) / 2
        high = 1.2 * max(_distance(r) + r.score.deviation for r in rows)
        ax.set_ylim(low, high)
        ticks = [y for y in _DISTANCES if low <= y <= high]
        ax.set_yticks(ticks, [f"{y:g}" for y in ticks])
        ax.minorticks_off()
        ax.set_xlabel(
            "cost: slices trained on, % of the training's; those of about one cost are side by side"
        )
        ax.set_ylabel("distance from the oracle (dB), less is better")
        _legend(figure)
        return svg_text(figure)


def side_by_side(rows: Sequence[Row]) -> dict[str, float]:
    """Method → where it stands on the axis of costs, in per cent."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda r: (_percent(r), r.score.mean)):
        if groups and _percent(row) <= _NEARLY * _percent(groups[-1][0]):
            groups[-1].append(row)
        else:
            groups.append([row])
    places = {}
    for group in groups:
        middle = (len(group) - 1) / 2
        for number, row in enumerate(sorted(group, key=lambda r: r.score.mean)):
            places[row.method] = statistics.fmean(map(_percent, group)) * _APART ** (number - middle)
    return places


def radar(rows: Sequence[Row]) -> str:
    """SVG: the paper's radar chart, in distances from the oracle, of a few methods.

    Three axes are the mean gap on retain-test, forget-test and forget-train (the oracle is the ring at 0 dB,
    less is inside, more outside), the fourth is the speed, one over the cost, on a logarithmic scale.
    """
    shown = radar_rows(rows)
    farthest = max(abs(row.gaps[name].mean) for row in shown for name in GAPS)
    limit = min(_FARTHEST, max(1, math.ceil(farthest)))
    fastest = max(10.0, *(1 / row.cost.mean for row in shown if row.cost.mean > 0))
    angles = [math.pi / 2 * turn for turn in range(4)]
    with axes(WIDE, 5.6, polar=True) as (figure, plain):
        ax = cast(PolarAxes, plain)
        ring = [turn * math.pi / 90 for turn in range(181)]
        ax.plot(ring, [0.0] * len(ring), color=INK, ls="--", lw=1)
        for row in shown:
            # As in the other figure.
            colour, marker = _look(next(n for n, other in enumerate(rows) if other is row))
            radii = [max(-limit, min(limit, row.gaps[name].mean)) for name in GAPS]
            speed = 1 / row.cost.mean if row.cost.mean > 0 else fastest
            radii.append(2 * limit * math.log(max(speed, 1.0)) / math.log(fastest) - limit)
            ax.plot(
                [*angles, 0], [*radii, radii[0]], color=colour, marker=marker, ms=4, lw=1, label=row.method
            )
        ax.set_ylim(-limit, limit)
        ax.set_xticks(
            angles, ["retain-test", "forget-test", "forget-train", f"speed\n(rim: {fastest:.0f} times)"]
        )
        ticks = [-limit, *([-limit / 2] if limit > 1 else []), 0, *([limit / 2] if limit > 1 else []), limit]
        ax.set_yticks(ticks, [f"{tick:+g} dB" if tick else "oracle" for tick in ticks])
        ax.set_rlabel_position(68)
        ax.tick_params(axis="x", pad=9)
        said = f"The {len(shown)} nearest methods" if len(shown) < len(rows) else "All methods"
        if len(shown) < len(rows):
            said += ", with cached-ascent and retain-ft in any case"
        if farthest > limit:
            said += f"; gaps beyond {limit} dB are drawn at {limit} dB"
        figure.suptitle(f"{said}.", fontsize=8, color=MUTED)
        _legend(figure)
        return svg_text(figure)


def radar_rows(rows: Sequence[Row]) -> list[Row]:
    """The few methods that the radar chart shows: ours, plain fine-tuning, and the nearest of the others."""
    always = [r for r in rows if r.method in (OURS, "retain-ft")]
    others = sorted((r for r in rows if r not in always), key=lambda r: r.score.mean)
    kept = [*always, *others][:_SHOWN]
    return [r for r in rows if r in kept]


def _join(ax: Axes, front: Sequence[tuple[float, float]], line: str) -> None:
    ax.plot(
        [cost for cost, _ in front],
        [distance for _, distance in front],
        color=MUTED,
        ls=line,
        lw=1,
        drawstyle="steps-post",
        zorder=1,
    )


def _percent(row: Row) -> float:
    return max(100 * row.cost.mean, _LEAST)


def _distance(row: Row) -> float:
    return max(row.score.mean, _NEAREST)


def _look(number: int) -> tuple[str, str]:
    return _COLOURS[number % len(_COLOURS)], _MARKERS[(number // len(_COLOURS) + number) % len(_MARKERS)]


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=5, handlelength=1.6, columnspacing=1.2)
