"""The way of the run: accuracy and loss over the rounds, with withdrawals and unlearning marked."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cli.report.canvas import NARROW, WIDE, Drawing, axes, svg
from cli.report.palette import BAD, SHADE, ordered, style_of
from cli.report.words import listed
from cli.results import Results

# Colours of sites, none of them a model's.
_SITES = ("#332288", "#117733", "#882255", "#7a7a1f", "#2b8a7d", "#aa4499")
_PATTERNS = ("-", "--", "-.", ":")
_HEIGHTS = (0.03, 0.48, 0.92)
_TEXT_WIDTH = 0.35
"""Of the axes: what the name of a withdrawal takes."""


def training(results: Results) -> list[Drawing]:
    """PSNR of each site over the rounds, with the withdrawals marked and the unlearning rounds shaded."""
    drawings: list[Drawing] = []
    for site in results.sites:
        lines = {
            line: [
                (record.round, record.evaluation[site.name].psnr)
                for record in results.rounds
                if record.line == line and record.evaluation and site.name in record.evaluation
            ]
            for line in ("main", "oracle")
        }
        if not lines["main"]:
            continue
        with axes(NARROW, 2.5) as (figure, ax):
            _unlearning_spans(results, ax)
            for model, points in _by_model(results, lines).items():
                style, marker = style_of(model), None if model == "oracle" else "."
                xs, ys = [x for x, _ in points], [y for _, y in points]
                ax.plot(xs, ys, color=style.colour, ls=style.line, marker=marker, lw=1.3, label=style.title)
            _withdrawal_lines(results, ax)
            ax.set_title(site.standing)
            ax.set_xlabel("round")
            ax.set_ylabel("PSNR (dB)")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
            figure.legend(loc="outside upper left", ncols=3, handlelength=2.4, columnspacing=1.2)
            first, last = lines["main"][0], lines["main"][-1]
            alt = (
                f"Line chart of the test PSNR of {site.name}: {first[1]:.1f} dB after round {first[0]}, "
                f"{last[1]:.1f} dB after round {last[0]}."
            )
            drawings.append(Drawing(f"training-{len(drawings) + 1}", svg(figure), alt, ""))
    return drawings


def losses(results: Results) -> Drawing | None:
    """Training loss of each site over the rounds of the consortium; ``None`` if none was recorded."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in results.rounds:
        for name, part in record.sites.items():
            if record.line == "main" and part.train_loss is not None:
                curves.setdefault(name, []).append((record.round, part.train_loss))
    if not curves:
        return None
    text = ", ".join(
        f"{name} from {points[0][1]:.3f} to {points[-1][1]:.3f}" for name, points in curves.items()
    )
    alt = f"Line chart of the training loss: {text}."
    wide, narrow = (_losses(results, curves, width) for width in (WIDE, NARROW))
    return Drawing("losses", wide, alt, "Training loss at each site.", narrow)


def _losses(results: Results, curves: dict[str, list[tuple[int, float]]], width: float) -> str:
    with axes(width, 2.6) as (figure, ax):
        _unlearning_spans(results, ax)
        for place, (name, points) in enumerate(curves.items()):
            colour, pattern = _SITES[place % len(_SITES)], _PATTERNS[place % len(_PATTERNS)]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            ax.plot(xs, ys, color=colour, ls=pattern, lw=1.2, label=name)
        _withdrawal_lines(results, ax)
        ax.set_xlabel("round")
        ax.set_ylabel("training loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        figure.legend(loc="outside upper left", ncols=6 if width == WIDE else 3, handlelength=2.4)
        return svg(figure)


def _by_model(
    results: Results, lines: dict[str, list[tuple[int, float]]]
) -> dict[str, list[tuple[int, float]]]:
    """Split the main line where unlearning began: the original until then, the unlearned model after."""
    began = next((r.round for r in results.rounds if r.line == "main" and r.kind != "train"), None)
    main = lines["main"]
    parts = {"oracle": lines["oracle"], "original": main}
    if began is not None:
        parts["original"] = [point for point in main if point[0] < began]
        # From the last point of the original, so that the line is not broken.
        parts["unlearned"] = parts["original"][-1:] + [point for point in main if point[0] >= began]
    return {model: parts[model] for model in ordered(parts) if parts[model]}


def _unlearning_spans(results: Results, ax: Axes) -> None:
    kinds = [(record.round, record.kind) for record in results.rounds if record.line == "main"]
    start: int | None = None
    for number, kind in [*kinds, (0, "train")]:
        if kind != "train":
            start = number if start is None else start
            end = number
        elif start is not None:
            ax.axvspan(start - 0.5, end + 0.5, color=SHADE, linewidth=0, zorder=0.5)
            start = None


def _withdrawal_lines(results: Results, ax: Axes) -> None:
    curves = [np.asarray(line.get_xydata(), dtype=float) for line in ax.get_lines()]
    for withdrawal in results.withdrawals:
        place = withdrawal.at_round + 0.5
        ax.axvline(place, color=BAD, lw=1)
        ax.annotate(
            f"withdrawal of {listed(withdrawal.sites)}",
            (place, _free_height(ax, curves, place)),
            (-4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
            color=BAD,
        )


def _free_height(ax: Axes, curves: list[np.ndarray], place: float) -> float:
    """Where, of bottom, middle and top, a text that ends at ``place`` is farthest from every curve."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    text = np.linspace(place - _TEXT_WIDTH * (right - left), place, 20)
    heights = [(np.interp(text, *curve.T) - bottom) / (top - bottom) for curve in curves if len(curve)]

    def room(height: float) -> float:
        return min((float(np.abs(there - height).min()) for there in heights), default=1.0)

    return max(_HEIGHTS, key=room)
