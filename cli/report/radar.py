"""The paper's radar chart: what a model kept, what it forgot, and how fast it was made."""

from __future__ import annotations

import math
from typing import cast

from matplotlib.projections.polar import PolarAxes

from cli.report.canvas import NARROW, Drawing, axes, svg
from cli.report.figures import SETS
from cli.report.palette import MUTED, RULE, style_of
from cli.results import Accuracy, Results


def radar(results: Results) -> Drawing | None:
    """The paper's radar chart: three accuracies and the speed; ``None`` without an unlearned model."""
    models = [model for model in ("original", "oracle", "unlearned") if model in results.accuracy]
    cost = results.cost.get(results.method or "")
    if "unlearned" not in models or any(results.accuracy[model].forget_test is None for model in models):
        return None
    values = {model: _three(results.accuracy[model]) for model in models}
    everything = [value for three in values.values() for value in three]
    low = 5 * math.floor((min(everything) - 2) / 5)
    high = 5 * math.ceil(max(everything) / 5)
    speed = 1 / cost.client_seconds_fraction if cost and cost.client_seconds_fraction > 0 else None
    fastest = 10 ** math.ceil(math.log10(speed)) if speed and speed > 1 else 10.0
    angles = [math.pi / 2 * turn for turn in range(4)]
    with axes(NARROW, 3.7, polar=True) as (figure, ax):
        for model in models:
            style = style_of(model)
            quickness = {"original": fastest, "oracle": 1.0}.get(model, speed)
            radii = [(value - low) / (high - low) for value in values[model]]
            radii.append(_speed_radius(quickness, fastest))
            ax.plot([*angles, 0], [*radii, radii[0]], color=style.colour, ls=style.line, label=style.title)
            ax.plot(
                angles,
                radii,
                color=style.colour,
                marker=style.marker,
                mfc=style.face,
                ls="none",
                ms=5,
                clip_on=False,
            )
            if model == "unlearned":
                ax.fill([*angles, 0], [*radii, radii[0]], color=style.colour, alpha=0.1, linewidth=0)
        _radar_axes(cast(PolarAxes, ax), angles, (low, high), fastest)
        figure.legend(loc="outside upper left", ncols=3, handlelength=2.4, columnspacing=1.2)
        text = "; ".join(
            f"{style_of(model).label}: "
            + ", ".join(f"{name} {v:.2f} dB" for name, v in zip(SETS.values(), values[model], strict=True))
            for model in models
        )
        pace = f"; speed of unlearning {speed:.1f} times that of the training" if speed else ""
        caption = (
            "Forgetting puts Gᵤ on Ĝ in the three accuracies; speed, one over the share of the training's "
            "computing time (logarithmic), says what it saves. Retraining is at 1\u00a0×; the original, "
            "which needs nothing, is at the rim."
        )
        return Drawing("radar", svg(figure), f"Radar chart. {text}{pace}.", caption)


def _three(accuracy: Accuracy) -> list[float]:
    return [getattr(accuracy, name).psnr for name in SETS]


def _speed_radius(speed: float | None, fastest: float) -> float:
    return 0.2 if not speed else 0.2 + 0.8 * max(0.0, min(1.0, math.log(max(speed, 1)) / math.log(fastest)))


def _radar_axes(ax: PolarAxes, angles: list[float], limits: tuple[int, int], fastest: float) -> None:
    low, high = limits
    ax.set_theta_zero_location("N")
    ax.set_theta_direction(-1)
    ax.set_ylim(0, 1)
    ax.set_xticks(angles, [*SETS.values(), "speed"])
    ax.tick_params(axis="x", pad=12)
    decibels = range(low + 5, high + 1, 5)
    ax.set_yticks(
        [(d - low) / (high - low) for d in decibels], [f"{d} dB" if d > low + 5 else "" for d in decibels]
    )
    ax.set_rlabel_position(45)
    ax.tick_params(axis="y", labelsize=7, labelcolor=MUTED)
    ax.spines["polar"].set_color(RULE)
    for value, offset in ((1.0, (-5, -10)), (fastest, (-4, 6))):
        ax.annotate(
            f"{value:.0f} ×", (angles[3], _speed_radius(value, fastest)), offset, textcoords="offset points",
            ha="right", fontsize=7, color=MUTED,
        )  # fmt: skip
