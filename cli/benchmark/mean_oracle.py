"""Methods held against the mean of several oracles, of which any one is an accident of its seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cli.benchmark.floor import ANOTHER
from cli.benchmark.score import GAPS, Row, row
from cli.benchmark.store import Record
from cli.gauge import Figures


@dataclass(frozen=True, slots=True)
class MeanOracle:
    """What was found against the mean of a case's oracles.

    Attributes
    ----------
    oracles
        How many a case has.
    rows
        Methods that succeeded in every case, the nearest first.
    other
        Each oracle against the mean of the rest of its case: how far one is who retrains.
    """

    oracles: int
    rows: list[Row]
    other: Row


def against_the_mean(reported: Mapping[str, Sequence[Record]], others: Sequence[Record]) -> MeanOracle | None:
    """Compare once more, with the mean of all oracles of a case; ``None`` if a case has only one.

    Parameters
    ----------
    reported
        Method → its records, against one oracle.
    others
        Records of the further oracles.
    """
    cases = {r.case: [r.oracle] for records in reported.values() for r in records}
    for record in others:
        if record.attempt is not None and record.case in cases:
            cases[record.case].append(record.attempt.figures)
    counts = {len(oracles) for oracles in cases.values()}
    if len(counts) != 1 or max(counts) < 2:
        return None
    means = {case: _mean(oracles) for case, oracles in cases.items()}
    rows = [
        row(method, [_held_against(record, means[record.case]) for record in records])
        for method, records in reported.items()
        if records and all(record.attempt is not None for record in records)
    ]
    like = {record.case: record for record in others if record.attempt is not None}
    apart = [
        _held_against(_of(like[case], own), _mean([*oracles[:n], *oracles[n + 1 :]]))
        for case, oracles in cases.items()
        for n, own in enumerate(oracles)
    ]
    other = row(ANOTHER, apart, cooperating=False)
    assert other is not None  # noqa: S101 - every one has figures
    return MeanOracle(
        max(counts), sorted((r for r in rows if r is not None), key=lambda r: r.score.mean), other
    )


def _mean(found: Sequence[Figures]) -> Figures:
    return Figures(
        {name: statistics.fmean(f.psnr[name] for f in found) for name in found[0].psnr},
        {name: statistics.fmean(f.ssim[name] for f in found) for name in found[0].ssim},
        {steps: statistics.fmean(f.relearn[steps] for f in found) for steps in found[0].relearn},
    )


def _of(record: Record, figures: Figures) -> Record:
    assert record.attempt is not None  # noqa: S101 - it was counted
    return replace(record, attempt=replace(record.attempt, figures=figures))


def _held_against(record: Record, oracle: Figures) -> Record:
    attempt = record.attempt
    assert attempt is not None  # noqa: S101 - failures are left out
    figures = attempt.figures
    gaps = {name: figures.psnr[name] - oracle.psnr[name] for name in GAPS}
    relearn = {steps: value - oracle.relearn[steps] for steps, value in figures.relearn.items()}
    return replace(record, oracle=oracle, attempt=replace(attempt, gaps=gaps, relearn_gaps=relearn))
