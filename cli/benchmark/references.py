"""What every method is held against, as rows of the same tables: nothing done, retrained, retrained anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cli.benchmark.floor import ANOTHER
from cli.benchmark.plan import Case
from cli.benchmark.score import GAPS, Row, row
from cli.benchmark.sizes import remaining_share
from cli.benchmark.store import Record
from cli.trials import Attempt

ORIGINAL = "(nothing done: G)"
RETRAINED = "(`retrain`: the oracle)"


def references(records: Sequence[Record], cases: Sequence[Case], others: Sequence[Record]) -> list[Row]:
    """G, the oracle itself, and other oracles, over the given cases; empty if none of them has a record.

    Parameters
    ----------
    records
        Of any method: each tells its case's G and oracle.
    cases
        Those that are summed up.
    others
        Of oracles that were trained besides; may be several for a case.
    """
    told = {record.case: record for record in records}
    kept = [case for case in cases if case.name in told]
    makers: dict[str, Callable[[Record, Case], Attempt]] = {ORIGINAL: _original, RETRAINED: _retrained}
    rows = [
        row(
            name,
            [_record(told[case.name], name, make(told[case.name], case)) for case in kept],
            cooperating=False,
        )
        for name, make in makers.items()
    ]
    names = {case.name for case in kept}
    rows.append(row(ANOTHER, [other for other in others if other.case in names], cooperating=False))
    return [found for found in rows if found is not None]


def _record(like: Record, name: str, attempt: Attempt) -> Record:
    return Record(like.stage, like.case, name, {}, like.original, like.oracle, attempt)


def _original(record: Record, case: Case) -> Attempt:
    del case
    found, oracle = record.original, record.oracle
    free = dict.fromkeys(("slices", "client_seconds", "rounds", "bytes"), 0.0)
    return Attempt(
        found,
        {name: found.psnr[name] - oracle.psnr[name] for name in GAPS},
        {steps: value - oracle.relearn[steps] for steps, value in found.relearn.items()},
        free,
    )


def _retrained(record: Record, case: Case) -> Attempt:
    """No gap by definition; as many rounds as the training, without the leaver's slices."""
    gaps = dict.fromkeys(GAPS, 0.0)
    relearn: Mapping[str, float] = dict.fromkeys(record.oracle.relearn, 0.0)
    return Attempt(record.oracle, gaps, dict(relearn), {"slices": remaining_share(case), "rounds": 1.0})
