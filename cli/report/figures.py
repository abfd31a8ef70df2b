"""The figures of what was found: accuracies, relearning, ascent steps, cost."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from cli.report.canvas import NARROW, WIDE, Drawing, axes, svg
from cli.report.palette import BAD, GOOD, MUTED, RULE, SHADE, ordered, style_of
from cli.report.verdict import margins_of
from cli.report.words import listed, percent
from cli.results import Results

SETS = {"retain_test": "retain-test", "forget_test": "forget-test", "forget_train": "forget-train"}


# Whether it is a set (else a site), its label, and the PSNR by model.
_Row = tuple[bool, str, dict[str, float]]


def accuracies(results: Results) -> Drawing:
    """The three accuracies and every site: a dot a model on one PSNR axis, with the oracle's tolerance."""
    models = ordered(results.accuracy)
    rows = _rows(results, models)
    margin = margins_of(results).accuracy_margin_db
    text = "; ".join(
        f"{label}: " + ", ".join(f"{style_of(m).label} {value:.2f} dB" for m, value in values.items())
        for _, label, values in rows
    )
    caption = (
        "Where Gᵤ should be: on Ĝ, in every row. The shaded band is the tolerance of "
        f"± {margin:g} dB about the oracle."
        if "oracle" in models
        else "Accuracy on each set; no oracle was trained to compare with."
    )
    wide, narrow = (_accuracies(rows, models, margin, width) for width in (WIDE, NARROW))
    return Drawing("accuracies", wide, f"Dot plot of accuracy. {text}.", caption, narrow)


def _accuracies(rows: list[_Row], models: list[str], margin: float, width: float) -> str:
    with axes(width, 0.72 + 0.36 * len(rows)) as (figure, ax):
        for place, (is_set, _, values) in enumerate(rows):
            oracle = values.get("oracle")
            if oracle is not None and is_set:
                band = (oracle - margin, oracle + margin)
                ax.fill_betweenx((place - 0.38, place + 0.38), *band, color=SHADE, linewidth=0, zorder=0.5)
            span = (min(values.values()), max(values.values()))
            ax.plot(span, (place, place), color=RULE, lw=1.2, zorder=1)
            for model, value in values.items():
                _dot(ax, model, value, place, label=style_of(model).title if place == 0 else None)
            if place and rows[place - 1][0] and not is_set:
                ax.axhline(place - 0.5, color=MUTED, lw=0.6)
        ax.set_yticks(range(len(rows)), [label for _, label, _ in rows])
        ax.set_ylim(len(rows) - 0.45, -0.55)
        ax.grid(visible=False, axis="y")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("PSNR (dB), more is better")
        figure.legend(loc="outside upper left", ncols=len(models), handletextpad=0.3, columnspacing=1.4)
        return svg(figure)


def relearning(results: Results) -> Drawing | None:
    """PSNR against steps of fine-tuning on fresh data of the withdrawn organ; ``None`` if not measured."""
    if not results.relearn:
        return None
    margin = margins_of(results).relearn_margin_db
    with axes(NARROW, 2.9) as (figure, ax):
        for model in ordered(results.relearn):
            curve = sorted(results.relearn[model].items())
            style = style_of(model)
            steps, values = [step for step, _ in curve], [value for _, value in curve]
            (curve_line,) = ax.plot(steps, values, color=style.colour, ls=style.line, label=style.title)
            curve_line.set(marker=style.marker, markerfacecolor=style.face)
            if model == "oracle":
                low, high = ([v + s * margin for v in values] for s in (-1, 1))
                ax.fill_between(steps, low, high, color=SHADE, linewidth=0, zorder=0.5)
        every = sorted({step for curve in results.relearn.values() for step in curve})
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator([float(step) for step in every]))
        ax.xaxis.set_minor_locator(FixedLocator([]))
        ax.set_xticks(every, [str(step) for step in every])
        ax.set_xlabel("fine-tuning steps on fresh data of the withdrawn organ")
        ax.set_ylabel("PSNR (dB)")
        figure.legend(loc="outside upper left", ncols=3, handlelength=2.4, columnspacing=1.2)
        text = "; ".join(
            f"{style_of(model).label}: "
            + ", ".join(f"{psnr:.1f} dB after {n}" for n, psnr in sorted(results.relearn[model].items()))
            for model in ordered(results.relearn)
        )
        caption = (
            "Knowledge that is only hidden comes back fast. A model that has forgotten learns like the "
            f"oracle (shaded: ± {margin:g} dB about it), not like the original."
        )
        return Drawing("relearning", svg(figure), f"Line chart of relearning. {text}.", caption)


def steps(results: Results) -> Drawing | None:
    """The ascent steps: their size, and what each cost the remaining sites; ``None`` without any."""
    taken = results.unlearning.steps if results.unlearning else ()
    if not taken:
        return None
    with axes(NARROW, 2.7) as (figure, ax):
        for place, step in enumerate(taken, 1):
            colour = GOOD if step.accepted else BAD
            ax.plot(
                (place, place), (0, step.step_norm), color=colour, lw=1.2, ls="-" if step.accepted else ":"
            )
            ax.plot(
                place, step.step_norm, marker="o" if step.accepted else "X", color=colour, ms=6, ls="none"
            )
            ax.annotate(
                f"α {step.alpha:.3g}",
                (place, step.step_norm),
                (0, 6),
                textcoords="offset points",
                ha="center",
            )
        for accepted, marker, label in ((True, "o", "kept"), (False, "X", "taken back")):
            ax.plot([], [], marker=marker, color=GOOD if accepted else BAD, ls="none", label=label)
        ax.set_xlim(0.4, len(taken) + 0.6)
        ax.set_ylim(0, 1.2 * max(step.step_norm for step in taken) or 1)
        ax.set_xticks(
            range(1, len(taken) + 1), [f"round {s.round}" if len(taken) < 6 else str(s.round) for s in taken]
        )
        ax.grid(visible=False, axis="x")
        ax.set_ylabel("norm of the step")
        figure.legend(loc="outside upper left", ncols=2)
        kept = sum(step.accepted for step in taken)
        sizes = listed([f"{s.step_norm:.3g} ({'kept' if s.accepted else 'taken back'})" for s in taken])
        caption = (
            "A step that costs the remaining hospitals more than the tolerance is taken back and halved."
        )
        alt = f"Ascent steps: {kept} of {len(taken)} kept; norms {sizes}."
        return Drawing("steps", svg(figure), alt, caption)


def costs(results: Results) -> Drawing | None:
    """What each method cost, as shares of the training; ``None`` if nothing was counted."""
    if not results.cost:
        return None
    kinds = {
        "rounds_fraction": "rounds",
        "client_seconds_fraction": "computing time",
        "bytes_fraction": "data moved",
    }
    bars = [
        (f"{label}, {method}" if len(results.cost) > 1 else label, getattr(cost, key))
        for method, cost in results.cost.items()
        for key, label in kinds.items()
    ]
    with axes(NARROW, 0.9 + 0.36 * len(bars)) as (figure, ax):
        ax.barh(
            range(len(bars)),
            [100 * share for _, share in bars],
            height=0.5,
            color=style_of("unlearned").colour,
        )
        for place, (_, share) in enumerate(bars):
            ax.annotate(percent(share), (100 * share, place), (4, 0), textcoords="offset points", va="center")
        ax.axvline(10, color=MUTED, lw=1, ls="--")
        ax.set_yticks(range(len(bars)), [label for label, _ in bars])
        ax.invert_yaxis()
        ax.set_xlim(0, 1.25 * max(12.0, *(100 * share for _, share in bars)))
        ax.set_xlabel("% of the training")
        ax.grid(visible=False, axis="y")
        text = ", ".join(f"{label} {percent(share)}" for label, share in bars)
        caption = "Cost of unlearning beside the training. Dashed: the paper's budget, 10 % of the training."
        return Drawing(
            "costs", svg(figure), f"Bar chart of cost as a share of the training: {text}.", caption
        )


def _rows(results: Results, models: list[str]) -> list[_Row]:
    """For each set, then each site: whether it is a set, its label, and the PSNR by model."""
    rows = []
    for name, label in SETS.items():
        found = {model: getattr(results.accuracy[model], name) for model in models}
        rows.append((True, label, {model: q.psnr for model, q in found.items() if q is not None}))
    for site in results.sites:
        label = site.standing
        sites = {model: results.accuracy[model].per_site.get(site.name) for model in models}
        rows.append((False, label, {model: q.psnr for model, q in sites.items() if q is not None}))
    return [row for row in rows if row[2]]


def _dot(ax: Axes, model: str, value: float, place: float, label: str | None) -> None:
    style = style_of(model)
    top, edge = (4, 9) if model == "oracle" else (3, 6)
    (dot,) = ax.plot(value, place, style.marker, color=style.colour, ls="none", zorder=top, label=label)
    dot.set(markerfacecolor=style.face, markersize=edge, markeredgewidth=1.4)
