"""What a benchmark has found so far, summed up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cli.benchmark.mean_oracle import MeanOracle, against_the_mean
from cli.benchmark.plan import Case, Plan
from cli.benchmark.references import references
from cli.benchmark.run import Benchmark
from cli.benchmark.score import Row, row
from cli.benchmark.searching import Tried, tried
from cli.benchmark.store import Record


@dataclass(frozen=True, slots=True)
class Group:
    """Some of the cases, all methods.

    Attributes
    ----------
    cases
        How many there are.
    rows
        Methods that succeeded somewhere, the nearest to the oracle first, those that failed somewhere last.
    references
        Nothing done, retrained, and retrained anew.
    others
        How many further oracles there should be.
    failed
        Methods that failed in every case → why, case by case.
    """

    cases: int
    rows: list[Row]
    references: list[Row]
    others: int
    failed: dict[str, tuple[str, ...]]

    def kind(self, cooperating: bool) -> list[Row]:
        """The rows of the methods that need the leaving site, or of those that do not."""
        return [r for r in self.rows if r.cooperating == cooperating]


@dataclass(frozen=True, slots=True)
class Summary:
    """What the page says.

    Attributes
    ----------
    all
        Over all cases.
    by_withdrawn
        The same for each withdrawn site by itself.
    mean_oracle
        Over all cases, against the mean of each case's oracles; ``None`` if it has but one.
    ablation
        Method → value of the varied setting, the chosen one first → its row.
    tried
        Method → what settings were tried.
    unfinished
        Attempts that are still to be made.
    foreign
        Records that were not used: of other consortia of the same names.
    versions
        Package → the versions that the records were made with.
    attempts, hours
        How many were made, and how long their unlearning took, one after the other, where it was.
    failures
        Method → why every setting of it failed.
    """

    all: Group
    by_withdrawn: dict[str, Group]
    mean_oracle: MeanOracle | None
    ablation: dict[str, dict[str, Row]]
    tried: dict[str, list[Tried]]
    unfinished: int
    foreign: int
    versions: dict[str, list[str]]
    attempts: int
    hours: float
    failures: dict[str, str]


def summarise(benchmark: Benchmark) -> Summary:
    """Sum up what was found so far."""
    plan = benchmark.plan
    reported = {method: benchmark.reported(method) for method in plan.config.methods}
    searched = {method: benchmark.searched(method) for method in plan.config.methods}
    ablated = benchmark.ablated()
    others = benchmark.other_oracles()
    groups = (reported, searched, *ablated.values())
    used = [record for group in groups for records in group.values() for record in records]
    made = {id(r): r.attempt.seconds for r in used if r.attempt is not None}
    leavers = sorted({case.withdrawn for case in plan.report})
    return Summary(
        all=_group(reported, plan.report, others, plan.config.other_oracles),
        by_withdrawn={
            site: _group(
                reported,
                [case for case in plan.report if case.withdrawn == site],
                others,
                plan.config.other_oracles,
            )
            for site in leavers
        },
        mean_oracle=against_the_mean(reported, others),
        ablation=_ablation(plan, reported, ablated),
        tried={method: tried(benchmark, method) for method in plan.config.methods},
        unfinished=benchmark.unfinished,
        foreign=benchmark.foreign,
        versions=_versions(used),
        attempts=len(made),
        hours=sum(made.values()) / 3600,
        failures={
            method: records[0].error
            for method, records in searched.items()
            if records and all(record.attempt is None for record in records)
        },
    )


def as_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain values."""
    return asdict(summary)


def _group(
    reported: Mapping[str, Sequence[Record]], cases: Sequence[Case], others: Sequence[Record], wanted: int
) -> Group:
    names = {case.name for case in cases}
    own = {method: [r for r in records if r.case in names] for method, records in reported.items()}
    rows = [found for method, records in own.items() if (found := row(method, records)) is not None]
    failed = {
        method: tuple(record.error for record in records)
        for method, records in own.items()
        if records and all(record.attempt is None for record in records)
    }
    every = [record for records in own.values() for record in records]
    ranked = sorted(rows, key=lambda r: (bool(r.failures), r.score.mean))
    return Group(len(cases), ranked, references(every, cases, others), wanted * len(cases), failed)


def _ablation(
    plan: Plan,
    reported: Mapping[str, Sequence[Record]],
    ablated: Mapping[str, Mapping[str, Sequence[Record]]],
) -> dict[str, dict[str, Row]]:
    setting = plan.config.ablation.setting if plan.config.ablation else ""
    tables = {}
    for method, values in ablated.items():
        rows = {"as chosen": row(method, reported.get(method, []))}
        rows |= {f"{setting} = {value}": row(method, records) for value, records in values.items()}
        tables[method] = {name: found for name, found in rows.items() if found is not None}
    return {method: rows for method, rows in tables.items() if rows}


def _versions(records: Sequence[Record]) -> dict[str, list[str]]:
    names = sorted({name for record in records for name in record.versions})
    return {n: sorted({r.versions[n] for r in records if n in r.versions}) for n in names}
