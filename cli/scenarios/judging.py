"""Whether what came of a scenario is what should, and whether doing nothing would have been noticed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cli.results import Results
from cli.scenarios.catalogue import Check

Verdict = Literal["passed", "failed", "could not have noticed", "no control"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check, and the values found.

    Attributes
    ----------
    values
        Of every field its path names; empty if the results have none.
    controls
        The same of its control, to which nothing was done; empty if it has none.
    """

    check: Check
    values: tuple[float, ...]
    controls: tuple[float, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """What comes of it; passing proves nothing where the control passes too, or is not there."""
        if not self._lie_right(self.values):
            return "failed"
        if self.check.control is None:
            return "passed"
        if not self.controls:
            return "no control"
        return "could not have noticed" if self._lie_right(self.controls) else "passed"

    @property
    def passed(self) -> bool:
        """Whether every value lies where it should, and those of the control do not."""
        return self.verdict == "passed"

    def _lie_right(self, values: Sequence[float]) -> bool:
        low = float("-inf") if self.check.at_least is None else self.check.at_least
        high = float("inf") if self.check.at_most is None else self.check.at_most
        return bool(values) and all(low <= value <= high for value in values)


def judge(results: Results, checks: Sequence[Check]) -> list[Finding]:
    """Look up each check's figure in the results, and that of its control.

    ``*`` in a path stands for every field or item, ``[key=value,…]`` for the items of a list that have these.
    """
    return judge_table(results.model_dump(mode="json"), checks)


def judge_table(table: Any, checks: Sequence[Check]) -> list[Finding]:
    """The same of results that are plain objects."""
    return [
        Finding(
            check,
            _differences(table, check.figure, check.minus),
            () if check.control is None else _differences(table, check.control, check.minus),
        )
        for check in checks
    ]


def _differences(table: Any, figure: str, minus: str | None) -> tuple[float, ...]:
    values = _values(table, steps_of(figure))
    if minus is None:
        return tuple(values)
    others = _values(table, steps_of(minus))
    # A figure that cannot be paired was not found.
    if len(values) != len(others):
        return ()
    return tuple(value - other for value, other in zip(values, others, strict=True))


def steps_of(path: str) -> list[str]:
    """The fields a path leads through; a condition in brackets is a step of its own."""
    return re.findall(r"\[[^\]]*\]|[^.\[\]]+", path)


def _values(node: Any, path: Sequence[str]) -> list[float]:
    if not path:
        return [float(node)] if isinstance(node, int | float) else []
    head, *rest = path
    if isinstance(node, dict):
        inner = list(node.values()) if head == "*" else [node[head]] if head in node else []
    elif isinstance(node, list):
        inner = _items(node, head)
    else:
        return []
    return [value for item in inner for value in _values(item, rest)]


def _items(node: list[Any], step: str) -> list[Any]:
    if step == "*":
        return node
    if step.startswith("["):
        wanted = dict(pair.split("=", 1) for pair in step[1:-1].split(","))
        return [
            item
            for item in node
            if isinstance(item, dict) and all(str(item.get(key)) == value for key, value in wanted.items())
        ]
    return [node[int(step)]] if step.isdigit() and int(step) < len(node) else []
