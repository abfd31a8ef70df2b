"""Whether what came of a scenario is what should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cli.results import Results
from cli.scenarios.catalogue import Check


@dataclass(frozen=True, slots=True)
class Finding:
    """One check, and the values found.

    Attributes
    ----------
    values
        Of every field its path names; empty if the results have none.
    """

    check: Check
    values: tuple[float, ...]

    @property
    def passed(self) -> bool:
        """Whether there is a value, and every one lies where it should."""
        low = float("-inf") if self.check.at_least is None else self.check.at_least
        high = float("inf") if self.check.at_most is None else self.check.at_most
        return bool(self.values) and all(low <= value <= high for value in self.values)


def judge(results: Results, checks: Sequence[Check]) -> list[Finding]:
    """Look up each check's figure in the results; ``*`` in a path stands for every field or item."""
    table = results.model_dump(mode="json")
    return [Finding(check, tuple(_values(table, check.figure.split(".")))) for check in checks]


def _values(node: Any, path: Sequence[str]) -> list[float]:
    if not path:
        return [float(node)] if isinstance(node, int | float) else []
    head, *rest = path
    if isinstance(node, dict):
        inner = list(node.values()) if head == "*" else [node[head]] if head in node else []
    elif isinstance(node, list):
        inner = node if head == "*" else [node[int(head)]] if head.isdigit() and int(head) < len(node) else []
    else:
        return []
    return [value for item in inner for value in _values(item, rest)]
