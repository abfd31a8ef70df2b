"""How far a benchmark that is made again on another machine comes out elsewhere: two files of attempts.

    python -m bench.repeated bench/results/small_elsewhere/attempts.jsonl bench/results/small/attempts.jsonl

Compared are attempts of the same method with the same settings in the same case. Everything is seeded, so
what differs is in what order each processor's libraries sum, and what the training makes of that.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from cli.benchmark.score import score
from cli.benchmark.store import Record, Store
from cli.trials import Attempt
from reconsent.errors import DataError

HEAD = (
    "| method | attempts in both | a gap differs by (mean) | at most | distance before | distance after |",
    "| --- | --- | --- | --- | --- | --- |",
)


Both = tuple[Attempt, Attempt]


def pairs(before: Sequence[Record], after: Sequence[Record]) -> dict[str, list[Both]]:
    """Method → the attempts that both files have and that failed in neither.

    Raises
    ------
    DataError
        If there is none.
    """
    known = {record.key: record.attempt for record in before}
    found: dict[str, list[Both]] = defaultdict(list)
    for record in {r.key: r for r in after if r.stage != "floor"}.values():
        first = known.get(record.key)
        if first is not None and record.attempt is not None:
            found[record.method].append((first, record.attempt))
    if not found:
        raise DataError("The two files have no attempt in common.", "Compare two runs of one plan.")
    return found


def table(found: Mapping[str, Sequence[Both]]) -> str:
    """A line a method, those that differ least first, in Markdown; figures in dB."""
    lines = []
    for method, both in found.items():
        differences = [abs(one.gaps[name] - two.gaps[name]) for one, two in both for name in one.gaps]
        distances = [statistics.mean(map(score, attempts)) for attempts in zip(*both, strict=True)]
        mean = statistics.mean(differences)
        told = " | ".join(f"{value:.2f}" for value in (mean, max(differences), *distances))
        lines.append((mean, f"| `{method}` | {len(both)} | {told} |"))
    return "\n".join([*HEAD, *(line for _, line in sorted(lines))])


def main() -> None:
    """Print the table of the two files named on the command line."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    before, after = (Store(Path(name)).records for name in sys.argv[1:3])
    print(table(pairs(before, after)))


if __name__ == "__main__":
    main()
