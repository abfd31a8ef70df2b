"""How good an unlearning is in one number, and what the numbers of several are together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.benchmark.store import Record
from cli.trials import Attempt

GAPS = ("retain_test", "forget_test", "forget_train")


def score(attempt: Attempt) -> float:
    """Distance from the oracle in dB: mean of the three absolute gaps, plus the mean absolute relearn gap.

    Both ways count alike: forgetting more than the oracle ever knew betrays the withdrawal as well.
    """
    three = statistics.fmean(abs(attempt.gaps[name]) for name in GAPS)
    relearn = attempt.relearn_gaps.values()
    return three + (statistics.fmean(map(abs, relearn)) if relearn else 0.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation over cases (0 for one case)."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of one or more values."""
        found = list(values)
        return cls(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else 0.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One method over all reported cases.

    Attributes
    ----------
    gaps
        ``retain_test``, ``forget_test``, ``forget_train``: signed, in dB.
    worst
        The largest absolute of these in any case, in dB.
    relearn
        Mean over step counts of the absolute relearn gap, in dB.
    worst_relearn
        The largest absolute relearn gap in any case, in dB.
    cost
        Client seconds over those of the training.
    score
        See :func:`score`.
    cases, failures
        How many attempts there are, and how many failed.
    """

    method: str
    settings: Mapping[str, Any]
    gaps: Mapping[str, Spread]
    worst: float
    relearn: Spread
    worst_relearn: float
    cost: Spread
    score: Spread
    cases: int
    failures: tuple[str, ...] = ()


def row(method: str, records: Sequence[Record]) -> Row | None:
    """Sum up the reported attempts of one method; ``None`` if none succeeded."""
    done = [record.attempt for record in records if record.attempt is not None]
    if not done:
        return None
    relearn = [[abs(gap) for gap in attempt.relearn_gaps.values()] for attempt in done]
    return Row(
        method=method,
        settings=records[0].settings,
        gaps={name: Spread.of(attempt.gaps[name] for attempt in done) for name in GAPS},
        worst=max(abs(attempt.gaps[name]) for attempt in done for name in GAPS),
        relearn=Spread.of(statistics.fmean(gaps) if gaps else 0.0 for gaps in relearn),
        worst_relearn=max((gap for gaps in relearn for gap in gaps), default=0.0),
        cost=Spread.of(attempt.cost["client_seconds"] for attempt in done),
        score=Spread.of(map(score, done)),
        cases=len(records),
        failures=tuple(sorted({record.error for record in records if record.attempt is None})),
    )


def best(records: Sequence[Record]) -> Record | None:
    """The settings with the lowest mean score over the search cases, of those that never failed."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.key[2], []).append(record)
    cases = max((len(group) for group in groups.values()), default=0)
    complete = [
        (statistics.fmean(score(record.attempt) for record in group if record.attempt), group[0])
        for group in groups.values()
        if len(group) == cases and all(record.attempt is not None for record in group)
    ]
    return min(complete, key=lambda pair: pair[0])[1] if complete else None


def dominated(rows: Sequence[Row]) -> set[str]:
    """Methods for which another one is at least as near to the oracle and as cheap, and better in one."""
    return {
        row.method
        for row in rows
        if any(
            other.score.mean <= row.score.mean
            and other.cost.mean <= row.cost.mean
            and (other.score.mean, other.cost.mean) != (row.score.mean, row.cost.mean)
            for other in rows
        )
    }
