"""What settings were tried for each method, how near each came, and which was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.benchmark.run import Benchmark
from cli.benchmark.score import by_settings, search_distance
from strategies.methods import METHODS, method_settings


@dataclass(frozen=True, slots=True)
class Tried:
    """One settings of a method, tried on the search cases.

    Attributes
    ----------
    values
        Every setting that any trial of the method gave → its value here, defaults filled in.
    distance
        Mean over the search cases in dB; ``None`` if it failed in one.
    chosen
        Whether it is reported.
    planned
        Whether the plan has it still: the ranges may have been others before.
    edges
        Of the chosen: numeric settings whose value is the least or the largest that was tried.
    """

    values: Mapping[str, Any]
    distance: float | None
    chosen: bool
    planned: bool
    edges: tuple[str, ...] = ()


def tried(benchmark: Benchmark, method: str) -> list[Tried]:
    """All settings of ``method`` in the file, the nearest first, the failed last."""
    groups = by_settings(benchmark.all_searched(method))
    chosen, planned = benchmark.chosen(method), benchmark.plan.candidates(method)
    names = list(dict.fromkeys(name for group in groups for name in group[0].settings))
    values = [_values(method, group[0].settings, names) for group in groups]
    planned_values = [_values(method, settings, names) for settings in planned]
    found = []
    for group, own in zip(groups, values, strict=True):
        settings = dict(group[0].settings)
        if settings not in planned and own in planned_values:
            continue  # the plan says the same in other words
        taken = settings == chosen
        edges = tuple(n for n in names if taken and at_edge(own[n], [other[n] for other in values]))
        found.append(Tried(own, search_distance(group), taken, settings in planned, edges))
    return sorted(found, key=lambda t: (t.distance is None, t.distance or 0.0))


def at_edge(value: object, tried_values: Sequence[object]) -> bool:
    """Whether a number is the least or the largest of several different ones."""
    numbers = [float(v) for v in tried_values if isinstance(v, int | float) and _is_number(v)]
    return _is_number(value) and len(set(numbers)) > 1 and value in (min(numbers), max(numbers))


def search_table(found: Mapping[str, Sequence[Tried]]) -> str:
    """A line for each trial, in Markdown."""
    lines = ["| method | settings | search distance | |", "| --- | --- | --- | --- |"]
    for method, trials in found.items():
        varied = [name for name, differs in _varied(trials).items() if differs]
        for number, trial in enumerate(trials):
            told = ", ".join(f"`{name} = {_said(trial.values[name])}`" for name in varied)
            distance = "failed" if trial.distance is None else f"{trial.distance:.2f}"
            marks = ["**chosen**"] if trial.chosen else []
            marks += [f"`{name}` at the edge of what was tried" for name in trial.edges]
            marks += [] if trial.planned else ["not in the plan"]
            title = method if number == 0 else ""
            lines.append(f"| {title} | {told or 'as below'} | {distance} | {'; '.join(marks)} |")
    return "\n".join(lines)


def fixed_table(found: Mapping[str, Sequence[Tried]]) -> str:
    """The settings that were the same in all trials of a method, in Markdown; empty if there are none."""
    lines = []
    for method, trials in found.items():
        same = [name for name, differs in _varied(trials).items() if not differs]
        if same:
            told = ", ".join(f"`{name} = {_said(trials[0].values[name])}`" for name in same)
            lines.append(f"| {method} | {told} |")
    return "\n".join(["| method | in all trials |", "| --- | --- |", *lines]) if lines else ""


def _values(method: str, settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    meant = method_settings(method, settings)
    fields = {field.alias or key: key for key, field in METHODS[method].settings_type.model_fields.items()}
    return {name: getattr(meant, fields[name]) for name in names}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _said(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _varied(trials: Sequence[Tried]) -> dict[str, bool]:
    names = trials[0].values if trials else {}
    return {name: len({repr(t.values[name]) for t in trials}) > 1 for name in names}
