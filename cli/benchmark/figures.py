"""The benchmark's figures: cost against distance from the oracle, and the paper's radar chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from cli.benchmark.score import Row, dominated
from cli.report.canvas import WIDE, axes, svg_text
from cli.report.palette import INK, MUTED

_COLOURS = ("#0068a8", "#b84a00", "#00775a", "#8a3f73", "#5b6673", "#7a6200")
_MARKERS = "oDs^vPX*"
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_LEAST = 0.5
"""Per cent; what costs less, or nothing, is drawn here."""


def pareto(rows: Sequence[Row]) -> str:
    """SVG: each method's client seconds over the training's, and its distance from the oracle in dB.

    Methods that no other one beats in both are joined by a line.
    """
    beaten = dominated(rows)
    with axes(WIDE, 4.6) as (figure, ax):
        front = sorted((r for r in rows if r.method not in beaten), key=lambda r: r.cost.mean)
        ax.plot(
            [_percent(r) for r in front],
            [r.score.mean for r in front],
            color=MUTED,
            ls="--",
            lw=1,
            drawstyle="steps-post",
            zorder=1,
        )
        for number, row in enumerate(rows):
            colour, marker = _look(number)
            ax.errorbar(
                _percent(row),
                row.score.mean,
                yerr=row.score.deviation,
                color=colour,
                marker=marker,
                ms=7,
                lw=0.8,
                capsize=2,
                ls="none",
                mfc="none" if row.method in beaten else colour,
                label=row.method,
            )
        dearest = max(100.0, *(100 * r.cost.mean for r in rows))
        ax.set_xscale("log")
        ax.set_xlim(_LEAST / 1.3, 1.3 * dearest)
        ax.set_xticks([x for x in _TICKS if x <= dearest], [f"{x:g}" for x in _TICKS if x <= dearest])
        ax.minorticks_off()
        ax.set_ylim(0, 1.08 * max(r.score.mean + r.score.deviation for r in rows))
        ax.set_xlabel("cost: computing time at the sites, % of the training")
        ax.set_ylabel("distance from the oracle (dB), less is better")
        _legend(figure)
        return svg_text(figure)


def radar(rows: Sequence[Row]) -> str:
    """SVG: the paper's radar chart, in distances from the oracle.

    Three axes are the mean gap on retain-test, forget-test and forget-train (the oracle is the ring at 0 dB,
    less is inside, more outside), the fourth is the speed, one over the cost, on a logarithmic scale.
    """
    names = ("retain_test", "forget_test", "forget_train")
    limit = max(2.0, *(abs(row.gaps[name].mean) for row in rows for name in names))
    limit = math.ceil(min(limit, 6.0))
    fastest = max(10.0, *(1 / row.cost.mean for row in rows if row.cost.mean > 0))
    angles = [math.pi / 2 * turn for turn in range(4)]
    with axes(WIDE, 5.4, polar=True) as (figure, plain):
        ax = cast(PolarAxes, plain)
        ring = [turn * math.pi / 90 for turn in range(181)]
        ax.plot(ring, [0.0] * len(ring), color=INK, ls="--", lw=1)
        for number, row in enumerate(rows):
            colour, marker = _look(number)
            radii = [max(-limit, min(limit, row.gaps[name].mean)) for name in names]
            speed = 1 / row.cost.mean if row.cost.mean > 0 else fastest
            radii.append(limit * math.log(max(speed, 1.0)) / math.log(fastest))
            ax.plot(
                [*angles, 0], [*radii, radii[0]], color=colour, marker=marker, ms=4, lw=1, label=row.method
            )
        ax.set_ylim(-limit, limit)
        ax.set_xticks(angles, ["retain-test", "forget-test", "forget-train", "speed"])
        ax.set_yticks(range(-limit, limit + 1, max(1, limit // 2)))
        ax.set_rlabel_position(45)
        _legend(figure)
        return svg_text(figure)


def _percent(row: Row) -> float:
    return max(100 * row.cost.mean, _LEAST)


def _look(number: int) -> tuple[str, str]:
    return _COLOURS[number % len(_COLOURS)], _MARKERS[(number // len(_COLOURS) + number) % len(_MARKERS)]


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=5, handlelength=1.6, columnspacing=1.2)
