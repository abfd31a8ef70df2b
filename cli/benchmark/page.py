"""The benchmark's page, written from its files alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cli.benchmark.figures import pareto, radar
from cli.benchmark.plan import Plan
from cli.benchmark.run import Benchmark
from cli.benchmark.score import GAPS, Row, Spread, dominated, row
from cli.benchmark.store import Record
from reconsent.files import write_atomically

OURS = "cached-ascent"

_PAPER = (1.1, 0.6, 0.0)
"""|retain|, |forget-test| and |forget-train| of NL-FT in table 1 of Xue et al. 2024, in dB."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the page says.

    Attributes
    ----------
    rows
        Methods that could be reported, the nearest to the oracle first.
    by_withdrawn
        The same for each withdrawn site by itself.
    original
        The model before unlearning: its gaps and relearn gap, as a row.
    ablation
        Each value of the varied setting, the chosen one first → its row.
    unfinished
        Attempts that are still to be made.
    failures
        Method → why every setting of it failed.
    """

    rows: list[Row]
    by_withdrawn: dict[str, list[Row]]
    original: dict[str, Spread]
    ablation: dict[str, Row]
    unfinished: int
    failures: dict[str, str]


def summarise(benchmark: Benchmark) -> Summary:
    """Sum up what was found so far."""
    plan = benchmark.plan
    methods = list(plan.config.methods)
    reported = {method: benchmark.reported(method) for method in methods}
    searched = {method: benchmark.searched(method) for method in methods}
    wanted = len(methods) * len(plan.report)
    wanted += sum(len(plan.candidates(method)) for method in methods) * len(plan.search)
    ablated = benchmark.ablated()
    wanted += len(ablated) * len(plan.report)
    made = sum(len(records) for each in (reported, searched, ablated) for records in each.values())
    leavers = {case.name: case.withdrawn for case in plan.report}
    failed = {
        method: records[0].error
        for method, records in searched.items()
        if records and all(record.attempt is None for record in records)
    }
    return Summary(
        rows=_ranked(reported),
        by_withdrawn={
            site: _ranked({m: [r for r in rs if leavers[r.case] == site] for m, rs in reported.items()})
            for site in sorted(set(leavers.values()))
        },
        original=_original([record for records in reported.values() for record in records]),
        ablation=_ablation(plan, reported, ablated),
        unfinished=wanted - made,
        failures=failed,
    )


def write_page(benchmark: Benchmark, page: Path) -> None:
    """Write ``page`` (Markdown) and its two figures beside it, in ``images/``."""
    summary = summarise(benchmark)
    name = f"benchmark-{benchmark.plan.name}"
    if summary.rows:
        write_atomically(page.parent / "images" / f"{name}-pareto.svg", pareto(summary.rows).encode())
        write_atomically(page.parent / "images" / f"{name}-radar.svg", radar(summary.rows).encode())
    write_atomically(page, render(benchmark.plan, summary, name).encode())


def render(plan: Plan, summary: Summary, name: str) -> str:
    """The page's text."""
    report, search = plan.config.report, plan.config.search
    parts = [
        f"# {plan.config.title}",
        "Written from the benchmark's files by `reconsent bench`; every figure in it is computed from them.",
        f"    reconsent bench --preset {plan.name}",
        f"Compared on the consortium `{report.consortium}` with seeds {_listed(report.seeds)}; leaving in "
        f"turn: {_listed(report.withdrawn)}. Settings were chosen on `{search.consortium}` with "
        f"seeds {_listed(search.seeds)}, leaving {_listed(search.withdrawn)}: at most {plan.config.budget} "
        "settings a method, the nearest to the oracle taken. All gaps are PSNR over that of the oracle, in "
        "dB; zero is perfect, too much forgotten counts as much as too little. *Distance* is the mean of the "
        "three absolute gaps plus the mean absolute relearn gap. ± is the standard deviation over cases.",
    ]
    if summary.unfinished:
        parts.append(f"**Unfinished: {summary.unfinished} attempts of the plan have not been made.**")
    if not summary.rows:
        return "\n\n".join([*parts, "Nothing has been reported yet."]) + "\n"
    parts += ["## All cases", _table(summary.rows, summary.original), "Italic: another method is at least as "
              "near to the oracle and as cheap.", f"![cost against distance](images/{name}-pareto.svg)",
              f"![radar chart](images/{name}-radar.svg)"]  # fmt: skip
    for site, rows in summary.by_withdrawn.items():
        parts += [f"## `{site}` leaves", _table(rows, None)]
    parts += ["## Where `cached-ascent` stands", _standing(summary)]
    if summary.ablation and plan.config.ablation is not None:
        varied = plan.config.ablation
        parts += [f"## `{varied.setting}` of `{varied.method}`", "All else as chosen.",
                  _table(list(summary.ablation.values()), None, names=list(summary.ablation))]  # fmt: skip
    parts += ["## Settings chosen", _settings(summary.rows)]
    if summary.failures:
        parts.append("## Methods that could not be reported")
        parts += [f"- `{method}`: {reason}" for method, reason in summary.failures.items()]
    return "\n\n".join(parts) + "\n"


def as_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain values."""
    return asdict(summary)


def _ranked(reported: Mapping[str, Sequence[Record]]) -> list[Row]:
    rows = [row(method, records) for method, records in reported.items() if records]
    return sorted((r for r in rows if r is not None), key=lambda r: r.score.mean)


def _ablation(
    plan: Plan, reported: Mapping[str, Sequence[Record]], ablated: Mapping[str, Sequence[Record]]
) -> dict[str, Row]:
    varied = plan.config.ablation
    if varied is None:
        return {}
    rows = {"as chosen": row(varied.method, reported.get(varied.method, []))}
    rows |= {f"{varied.setting} = {value}": row(varied.method, records) for value, records in ablated.items()}
    return {name: found for name, found in rows.items() if found is not None}


def _original(records: Sequence[Record]) -> dict[str, Spread]:
    cases = {record.case: record for record in records}.values()
    if not cases:
        return {}
    found = {g: Spread.of(r.original.psnr[g] - r.oracle.psnr[g] for r in cases) for g in GAPS}
    found["relearn"] = Spread.of(_relearn(record) for record in cases)
    return found


def _relearn(record: Record) -> float:
    oracle = record.oracle.relearn
    gaps = [abs(value - oracle[steps]) for steps, value in record.original.relearn.items()]
    return statistics.fmean(gaps) if gaps else 0.0


def _table(
    rows: Sequence[Row], original: Mapping[str, Spread] | None, *, names: Sequence[str] | None = None
) -> str:
    beaten = dominated(rows)
    lines = [
        "| method | distance | retain-test | forget-test | forget-train | relearn | worst gap "
        "| worst relearn | cost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    if original:
        gaps = " | ".join(f"{original[name].mean:+.2f}" for name in GAPS)
        lines.append(f"| (nothing done: G) | | {gaps} | {original['relearn'].mean:.2f} | | | 0 % |")
    for r, name in zip(rows, names or [r.method for r in rows], strict=True):
        title = f"*{name}*" if r.method in beaten and names is None else f"**{name}**"
        gaps = " | ".join(f"{r.gaps[name].mean:+.2f} ± {r.gaps[name].deviation:.2f}" for name in GAPS)
        lines.append(
            f"| {title} | {r.score.mean:.2f} ± {r.score.deviation:.2f} | {gaps} | {r.relearn.mean:.2f} | "
            f"{r.worst:.2f} | {r.worst_relearn:.2f} | {100 * r.cost.mean:.0f} % |"
        )
    return "\n".join(lines)


def _standing(summary: Summary) -> str:
    ours = next((r for r in summary.rows if r.method == OURS), None)
    if ours is None:
        return "It was not part of this benchmark."
    nearer = [r for r in summary.rows if r.score.mean < ours.score.mean]
    cheap = [r.method for r in nearer if r.cost.mean <= ours.cost.mean]
    dear = [r.method for r in nearer if r.cost.mean > ours.cost.mean]
    said = [
        f"Nearer to the oracle at equal or lower cost: {_listed(cheap) or 'none'}. "
        f"Nearer at a higher cost: {_listed(dear) or 'none'}."
    ]
    absolute = [abs(ours.gaps[name].mean) for name in GAPS]
    beaten = statistics.fmean(absolute) < statistics.fmean(_PAPER)
    said.append(
        f"Its mean absolute gap is {statistics.fmean(absolute):.2f} dB; that of NL-FT in the paper, which "
        f"had the forget set in hand, is {statistics.fmean(_PAPER):.2f} dB (−1.1, −0.6, 0.0): "
        f"{'less' if beaten else 'not less'}. The two were measured on different data and models, so this "
        "compares orders of magnitude only."
    )
    return "\n\n".join(said)


def _settings(rows: Sequence[Row]) -> str:
    lines = ["| method | settings (others at their defaults) |", "| --- | --- |"]
    for r in rows:
        told = ", ".join(f"`{key} = {value}`" for key, value in r.settings.items())
        lines.append(f"| {r.method} | {told or 'defaults'} |")
    return "\n".join(lines)


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
