"""The benchmark's page, written from its files alone."""

from __future__ import annotations

from pathlib import Path

from cli.benchmark.figures import pareto, radar
from cli.benchmark.floor import ANOTHER
from cli.benchmark.plan import Case, CasesConfig, Plan
from cli.benchmark.run import Benchmark
from cli.benchmark.searching import fixed_table, search_table
from cli.benchmark.sizes import sizes
from cli.benchmark.standing import OURS, standing
from cli.benchmark.summary import Group, Summary, summarise
from cli.benchmark.tables import cost_table, failure_list, gap_table
from reconsent.files import write_atomically

_KINDS = {
    "Methods that leave the withdrawn site alone": False,
    "Methods that need the withdrawn site": True,
}

_COLUMNS = (
    "All gaps are PSNR over that of the oracle, in dB; zero is perfect, too much forgotten counts as much "
    "as too little. *Distance* is the mean of the three absolute gaps plus the mean absolute relearn gap, "
    "case by case. A gap is given as its mean ± the standard deviation over the cases, and in brackets the "
    "mean of its absolute values, in which cases of different signs do not cancel. *Relearn* is the mean "
    "absolute gap after the unlearned model and the oracle were fine-tuned alike on fresh data of the "
    "withdrawn organ; *worst* is the largest absolute value of any case. *Cost* is the number of slices "
    "trained on over that of the training, which is the same on every machine; the evaluations of the "
    "remaining sites' loss by which some methods watch over their steps are not in it, but in the seconds "
    "and bytes. Costs within 2 % of each other count as equal."
)

_SETTLED = (
    "The cases share consortium and data; seeds and leavers differ. They are few and correlated: ± is no "
    "confidence interval, and a verdict over them no test.",
)

_NO_FLOOR = (
    "One oracle was trained for each case, so how far two oracles of different seeds are apart (the noise "
    "floor, see {evidence}) is not measured here. Distances below it would mean nothing."
)


def write_page(benchmark: Benchmark, page: Path, command: str) -> None:
    """Write ``page`` (Markdown) and its two figures beside it, in ``images/``.

    Parameters
    ----------
    benchmark
        What was found.
    page
        Where to.
    command
        The command that writes this page.
    """
    summary = summarise(benchmark)
    name = f"benchmark-{benchmark.plan.name}"
    if summary.all.rows:
        write_atomically(page.parent / "images" / f"{name}-pareto.svg", pareto(summary.all.rows).encode())
        write_atomically(page.parent / "images" / f"{name}-radar.svg", radar(summary.all.rows).encode())
    write_atomically(page, render(benchmark.plan, summary, page, command).encode())


def render(plan: Plan, summary: Summary, page: Path, command: str) -> str:
    """The page's text."""
    parts = [
        f"# {plan.config.title}",
        "Written from the benchmark's files; every figure in it is computed from them. This command writes "
        "it, and first makes the attempts that are not in the file yet; without the file it makes all of "
        "them:",
        f"    {command}",
        f"The unlearning in its {summary.attempts} attempts took {summary.hours:.1f} hours on the machine "
        "that they were made on, whatever else that had to do; training the consortia, and measuring, comes "
        "on top.",
        _design(plan),
        _COLUMNS,
    ]
    if summary.unfinished:
        parts.append(f"**Unfinished: {summary.unfinished} attempts of the plan have not been made.**")
    if summary.foreign:
        parts.append(
            f"**Not used: {summary.foreign} records of consortia that have the same names as these, but "
            "other settings.**"
        )
    if summary.all.rows or summary.all.failed:
        parts += _results(plan, summary)
    else:
        parts.append("Nothing has been reported yet.")
    parts += _search(summary)
    parts += ["## What is compared", *_sizes(plan), _fixed(plan), _versions(summary)]
    parts += ["## What to hold against it", _limits(plan, page)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _design(plan: Plan) -> str:
    search, report = plan.config.search, plan.config.report
    compared = (
        f"Compared on the consortium `{_name(plan.report)}` {_drawn(report)}: {len(plan.report)} cases. "
    )
    if plan.config.budget == 1:
        return compared + "Each method has the one setting of the plan; nothing was searched."
    return compared + (
        f"Settings were chosen on `{_name(plan.search)}` {_drawn(search)} ({_count(len(plan.search))}): at "
        f"most {plan.config.budget} settings a method within the ranges of the plan, the nearest to the "
        "oracle taken."
    )


def _results(plan: Plan, summary: Summary) -> list[str]:
    parts = ["## All cases", *_tables(summary.all, 3)]
    if summary.all.rows:
        name = f"benchmark-{plan.name}"
        parts += [
            f"![cost against distance](images/{name}-pareto.svg)",
            f"![radar chart of the nearest methods](images/{name}-radar.svg)",
            "### Costs of every kind, and SSIM",
            "Costs over those of the training. Seconds are those of the machine it ran on, which may have "
            "been busy with other things; gaps of SSIM are over that of the oracle, without unit.",
            cost_table([*summary.all.references, *summary.all.rows]),
        ]
    parts += _floor(summary)
    groups = {"All cases": summary.all} | {f"`{site}` leaves": g for site, g in summary.by_withdrawn.items()}
    if failures := failure_list(summary.all.rows, summary.all.failed):
        parts += ["### Failures", failures]
    for title, group in list(groups.items())[1:]:
        parts += [f"## {title}", *_tables(group, 3)]
    if OURS in plan.config.methods:
        told = standing({t: g.rows for t, g in groups.items()}, {t: g.cases for t, g in groups.items()})
        parts += [f"## Where `{OURS}` stands", told]
    if summary.ablation and plan.config.ablation is not None:
        parts += [f"## `{plan.config.ablation.setting}`, varied", "All else as chosen for each method."]
        for method, varied in summary.ablation.items():
            table = gap_table(list(varied.values()), expected=summary.all.cases, names=list(varied))
            parts += [f"### `{method}`", table]
    return parts


def _floor(summary: Summary) -> list[str]:
    """What other oracles say of the methods' distances; empty if none was trained."""
    other = next((row for row in summary.all.references if row.method == ANOTHER), None)
    if other is None:
        return []
    parts = [
        "### How far two oracles are apart",
        f"`{ANOTHER}` was retrained without the leaver as well, from another start and with its batches in "
        f"another order: {other.cases} of them. Its distance from the oracle that all are compared with is "
        f"{other.score.mean:.2f} dB in the mean, {min(other.all_scores):.2f} to {max(other.all_scores):.2f} "
        "one by one. So far is one who does the only exact thing twice: differences between methods that "
        "are smaller than that decide nothing.",
    ]
    if (mean := summary.mean_oracle) is not None:
        table = gap_table(
            mean.rows,
            expected=summary.all.cases,
            references=[mean.other],
            others=summary.all.cases + summary.all.others,
        )
        parts += [
            f"Any one oracle is an accident of its seed, so here is the same against the mean of the figures "
            f"of all {mean.oracles} oracles of a case; `{ANOTHER}` is each of them against the mean of the "
            "rest. Methods that failed somewhere are left out.",
            table,
        ]
    return parts


def _tables(group: Group, level: int) -> list[str]:
    parts = []
    for title, cooperating in _KINDS.items():
        rows = group.kind(cooperating)
        failed = [] if cooperating else list(group.failed)
        if rows or failed:
            table = gap_table(
                rows,
                expected=group.cases,
                references=group.references,
                others=group.others,
                failed=failed,
            )
            parts += [f"{'#' * level} {title}", table]
    parts.append(
        "Italic: another method of the same table is at least as near to the oracle and as cheap, and "
        "better in one of the two. A method that failed somewhere comes last, with the figures of the "
        "cases in which it did not."
    )
    return parts


def _search(summary: Summary) -> list[str]:
    parts = ["## Settings tried", search_table(summary.tried)]
    if any(not trial.planned for trials in summary.tried.values() for trial in trials):
        parts.append(
            "*Not in the plan*: tried on the same search case with values that the plan does not have, "
            "before its ranges were moved or afterwards; not chosen from."
        )
    if same := fixed_table(summary.tried):
        parts += ["The same in all trials of a method, all else at its defaults:", same]
    if summary.failures:
        parts.append("Methods of which every setting failed, and which could not be reported:")
        parts += ["\n".join(f"- `{method}`: {reason}" for method, reason in summary.failures.items())]
    return parts


def _sizes(plan: Plan) -> list[str]:
    cases = {case.consortium.name: case for case in (*plan.report, *plan.search)}
    return [sizes(case.consortium) for case in cases.values()]


def _fixed(plan: Plan) -> str:
    kept = plan.report[0].consortium.contributions
    anchors = ", ".join(f"{100 * share:g} %" for share in kept.anchors)
    updates = {0: "no single update", 1: "every update"}.get(
        kept.history_every, f"one update in {kept.history_every}"
    )
    models = f", and models after {anchors} of the rounds" if anchors else ""
    return (
        "The same for all methods: the trained model each begins from, what is kept of the training "
        f"({updates}{models}), the budget of rounds, the batches, and what is measured. A site that a method "
        "needs stays until its part is done."
    )


def _versions(summary: Summary) -> str:
    told = "; ".join(f"{name} {', '.join(found)}" for name, found in summary.versions.items())
    return f"Made with: {told}." if told else ""


def _limits(plan: Plan, page: Path) -> str:
    evidence = "[evidence](evidence.md)" if page.parent.name == "docs" else "`docs/evidence.md`"
    points = [
        f"Settings were searched on {_count(len(plan.search))} only; another would choose others.",
        *_SETTLED,
        *([] if plan.config.other_oracles else [_NO_FLOOR.format(evidence=evidence)]),
        *plan.config.limits,
    ]
    return "\n".join(f"- {point}" for point in points)


def _name(cases: tuple[Case, ...]) -> str:
    return cases[0].consortium.name


def _drawn(cases: CasesConfig) -> str:
    seeds = ", ".join(map(str, cases.seeds))
    leavers = ", ".join(f"`{site}`" for site in cases.withdrawn)
    return f"with seed{'s' * (len(cases.seeds) > 1)} {seeds}, leaving in turn: {leavers}"


def _count(cases: int) -> str:
    return "one case" if cases == 1 else f"{cases} cases"
