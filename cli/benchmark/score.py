"""How good an unlearning is in one number, and what the numbers of several are together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.benchmark.store import Record
from cli.trials import Attempt
from reconsent.errors import DataError
from strategies.methods import METHODS, method_settings

GAPS = ("retain_test", "forget_test", "forget_train")

SAME_COST = 1.02
"""Costs within 2 per cent count as equal."""


def score(attempt: Attempt) -> float:
    """Distance from the oracle in dB: mean of the three absolute gaps, plus the mean absolute relearn gap.

    Both ways count alike: forgetting more than the oracle ever knew betrays the withdrawal as well.

    Raises
    ------
    DataError
        If relearning was not measured: what was not looked at is no better than what was.
    """
    return mean_gap(attempt) + mean_relearn(attempt)


def mean_gap(attempt: Attempt) -> float:
    """Mean of the three absolute gaps in dB."""
    return statistics.fmean(abs(attempt.gaps[name]) for name in GAPS)


def mean_relearn(attempt: Attempt) -> float:
    """Mean absolute relearn gap over the step counts, in dB.

    Raises
    ------
    DataError
        If there is none.
    """
    if not attempt.relearn_gaps:
        raise DataError(
            "An attempt of the benchmark has no relearn gaps, so it cannot be compared.",
            "Remove it from the file of attempts, and run the benchmark where patients are left to relearn "
            "from.",
        )
    return statistics.fmean(map(abs, attempt.relearn_gaps.values()))


def cost(attempt: Attempt) -> float:
    """Slices trained on over those of the training; client seconds where slices were not counted.

    Slices are the same on every machine, busy or not.
    """
    return attempt.cost["slices"] if "slices" in attempt.cost else attempt.cost["client_seconds"]


def dearer(one: float, other: float) -> bool:
    """Whether ``one`` costs more than ``other``, by more than what counts as equal."""
    return one > SAME_COST * other


def asks_leaver(method: str, settings: Mapping[str, Any]) -> bool:
    """Whether the method needs the leaving site: such a one is not compared with those that do not."""
    return METHODS[method].needs(method_settings(method, settings)).cooperation


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
    """One method over all reported cases in which it succeeded.

    Attributes
    ----------
    cooperating
        Whether it needs the leaving site.
    gaps
        ``retain_test``, ``forget_test``, ``forget_train``: signed, in dB.
    absolute
        The same without sign, case by case: their means do not cancel.
    ssim
        The three gaps of SSIM, signed; without unit, empty if it was not measured.
    worst
        The largest absolute of the gaps in any case, in dB.
    mean_gap
        Mean of the three absolute gaps of a case, in dB.
    relearn
        Mean over step counts of the absolute relearn gap, in dB.
    worst_relearn
        The largest absolute relearn gap in any case, in dB.
    cost
        See :func:`cost`.
    other_costs
        ``client_seconds``, ``rounds``, ``bytes`` over those of the training, as far as they were counted.
    score
        See :func:`score`.
    scores
        The same, case by case.
    all_scores
        The same, attempt by attempt: several for a case where it was attempted more than once.
    cases, failures
        How many attempts there are, and why some failed: one reason for each attempt that did.
    """

    method: str
    cooperating: bool
    settings: Mapping[str, Any]
    gaps: Mapping[str, Spread]
    absolute: Mapping[str, Spread]
    ssim: Mapping[str, Spread]
    worst: float
    mean_gap: Spread
    relearn: Spread
    worst_relearn: float
    cost: Spread
    other_costs: Mapping[str, Spread]
    score: Spread
    scores: Mapping[str, float]
    all_scores: tuple[float, ...]
    cases: int
    failures: tuple[str, ...] = ()

    @property
    def succeeded(self) -> int:
        """In how many cases."""
        return self.cases - len(self.failures)


def row(method: str, records: Sequence[Record], *, cooperating: bool | None = None) -> Row | None:
    """Sum up the reported attempts of one method; ``None`` if none succeeded.

    Parameters
    ----------
    method
        Its name.
    records
        One for each case.
    cooperating
        For what is no method; empty: as the method says of itself.
    """
    found = [(record, record.attempt) for record in records if record.attempt is not None]
    if not found:
        return None
    done = [attempt for _, attempt in found]
    settings = records[0].settings
    return Row(
        method=method,
        cooperating=asks_leaver(method, settings) if cooperating is None else cooperating,
        settings=settings,
        gaps={name: Spread.of(attempt.gaps[name] for attempt in done) for name in GAPS},
        absolute={name: Spread.of(abs(attempt.gaps[name]) for attempt in done) for name in GAPS},
        ssim=_ssim(found),
        worst=max(abs(attempt.gaps[name]) for attempt in done for name in GAPS),
        mean_gap=Spread.of(map(mean_gap, done)),
        relearn=Spread.of(map(mean_relearn, done)),
        worst_relearn=max(abs(gap) for attempt in done for gap in attempt.relearn_gaps.values()),
        cost=Spread.of(map(cost, done)),
        other_costs={
            name: Spread.of(attempt.cost[name] for attempt in done)
            for name in ("client_seconds", "rounds", "bytes")
            if all(name in attempt.cost for attempt in done)
        },
        score=Spread.of(map(score, done)),
        scores={record.case: score(attempt) for record, attempt in found},
        all_scores=tuple(map(score, done)),
        cases=len(records),
        failures=tuple(record.error for record in records if record.attempt is None),
    )


def _ssim(found: Sequence[tuple[Record, Attempt]]) -> dict[str, Spread]:
    if not all(name in f.ssim for r, a in found for f in (a.figures, r.oracle) for name in GAPS):
        return {}
    return {name: Spread.of(a.figures.ssim[name] - r.oracle.ssim[name] for r, a in found) for name in GAPS}


def by_settings(records: Sequence[Record]) -> list[list[Record]]:
    """The records of each settings, in the order in which they were tried first."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.key[2], []).append(record)
    return list(groups.values())


def search_distance(group: Sequence[Record]) -> float | None:
    """Mean score over the search cases of one settings; ``None`` if one of them failed."""
    scores = [score(record.attempt) for record in group if record.attempt is not None]
    return statistics.fmean(scores) if scores and len(scores) == len(group) else None


def best(records: Sequence[Record]) -> Record | None:
    """The settings with the lowest mean score over the search cases, of those that never failed."""
    groups = by_settings(records)
    cases = max((len(group) for group in groups), default=0)
    rated = [(search_distance(group), group[0]) for group in groups if len(group) == cases]
    complete = [(distance, record) for distance, record in rated if distance is not None]
    return min(complete, key=lambda pair: pair[0])[1] if complete else None


def dominated(rows: Sequence[Row]) -> set[str]:
    """Methods for which another one is at least as near to the oracle and as cheap, and better in one.

    Only methods that need the leaving site, or only those that do not, are held against each other; one that
    failed in a case beats none.
    """
    return {one.method for one in rows if any(_beats(other, one) for other in rows)}


def _beats(other: Row, one: Row) -> bool:
    if other.cooperating != one.cooperating or other.failures:
        return False
    near, near_too = other.score.mean, one.score.mean
    if near > near_too or dearer(other.cost.mean, one.cost.mean):
        return False
    return near < near_too or dearer(one.cost.mean, other.cost.mean)
