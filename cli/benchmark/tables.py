"""The tables of the benchmark's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cli.benchmark.floor import ANOTHER
from cli.benchmark.score import GAPS, Row, Spread, dominated
from cli.benchmark.standing import percent


def gap_table(
    rows: Sequence[Row],
    *,
    expected: int,
    references: Sequence[Row] = (),
    others: int = 0,
    failed: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> str:
    """Distances and gaps, in Markdown.

    Parameters
    ----------
    rows
        Of one kind of method, ranked.
    expected
        How many cases there are.
    references
        Shown first: nothing done, retrained, and retrained anew.
    others
        How many further oracles there should be, among the references.
    failed
        Methods that failed in every case, shown last.
    names
        Of the rows, where they are no methods that are compared.
    """
    beaten = set() if names else dominated(rows)
    lines = [
        "| method | cases | distance | retain-test | forget-test | forget-train | relearn | worst gap "
        "| worst relearn | cost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    counts = {ANOTHER: others}
    lines += [_gap_line(r, r.method, counts.get(r.method, expected)) for r in references]
    for r, name in zip(rows, names or [r.method for r in rows], strict=True):
        lines.append(_gap_line(r, f"*{name}*" if r.method in beaten else f"**{name}**", expected))
    lines += [f"| {name} | 0/{expected} | failed | | | | | | | |" for name in failed]
    return "\n".join(lines)


def cost_table(rows: Sequence[Row]) -> str:
    """Costs of every kind, and gaps of SSIM, in Markdown."""
    lines = [
        "| method | slices trained on | seconds at the sites | rounds | bytes | SSIM retain-test "
        "| SSIM forget-test | SSIM forget-train |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        costs = " | ".join(_cost(r.other_costs, name) for name in ("client_seconds", "rounds", "bytes"))
        ssim = " | ".join(f"{r.ssim[name].mean:+.3f}" if name in r.ssim else "" for name in GAPS)
        lines.append(f"| {r.method} | {percent(r.cost.mean)} | {costs} | {ssim} |")
    return "\n".join(lines)


def failure_list(rows: Sequence[Row], failed: Mapping[str, Sequence[str]]) -> str:
    """Why methods failed, in Markdown; empty if none did."""
    reasons = {r.method: r.failures for r in rows if r.failures} | dict(failed)
    return "\n".join(
        f"- `{method}`, {_times(all_.count(reason))}: {reason}"
        for method, all_ in reasons.items()
        for reason in sorted(set(all_))
    )


def _gap_line(r: Row, title: str, expected: int) -> str:
    several = r.succeeded > 1
    gaps = " | ".join(
        f"{_spread(r.gaps[name], several, '+.2f')} ({r.absolute[name].mean:.2f})" for name in GAPS
    )
    return (
        f"| {title} | {r.succeeded}/{expected} | {_spread(r.score, several, '.2f')} | {gaps} | "
        f"{r.relearn.mean:.2f} | {r.worst:.2f} | {r.worst_relearn:.2f} | {percent(r.cost.mean)} |"
    )


def _spread(spread: Spread, several: bool, form: str) -> str:
    return f"{spread.mean:{form}} ± {spread.deviation:.2f}" if several else f"{spread.mean:{form}}"


def _cost(costs: Mapping[str, Spread], name: str) -> str:
    return percent(costs[name].mean) if name in costs else "–"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
