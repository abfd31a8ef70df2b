"""What several benchmarks of the same methods say together: distances, and differences case by case.

    python -m bench.pooled small fresh

Each plan's attempts are those in ``bench/results``. Distances are from the mean of each case's oracles; the
case-by-case differences are to ``cached-ascent``, positive where that is the nearer.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cli.benchmark.plan import load_plan
from cli.benchmark.run import Benchmark
from cli.benchmark.standing import OURS
from cli.benchmark.store import Store
from cli.benchmark.summary import summarise
from reconsent.errors import DataError

RESULTS = Path(__file__).parent / "results"

Distances = Mapping[str, Sequence[float]]
"""Method → its distance in each case, in dB; the cases in the same order for all methods."""


def distances(plan: str) -> Distances:
    """Of the plan's attempts in ``bench/results``, with other oracles as one of the methods.

    Raises
    ------
    DataError
        If the cases have but one oracle each.
    """
    store = Store(RESULTS / plan / "attempts.jsonl")
    summary = summarise(Benchmark(load_plan(plan), Path("runs"), store, workers=0))
    if summary.mean_oracle is None:
        raise DataError(f"The cases of '{plan}' have no further oracles.", "Set `other-oracles` in the plan.")
    rows = [*summary.mean_oracle.rows, summary.mean_oracle.other]
    return {row.method: list(row.all_scores) for row in rows}


def distance_table(found: Mapping[str, Distances]) -> str:
    """A line for each method that all have, the nearest over all first, in Markdown."""
    shared = set.intersection(*(set(of) for of in found.values()))
    pooled = {m: [x for of in found.values() for x in of[m]] for m in shared}
    lines = [f"| | {' | '.join(found)} | all |", "| --- |" + " --- |" * (len(found) + 1)]
    for method in sorted(shared, key=lambda m: statistics.mean(pooled[m])):
        told = " | ".join(
            _spread(values) for values in (*(of[method] for of in found.values()), pooled[method])
        )
        lines.append(f"| `{method}` | {told} |")
    return "\n".join(lines)


def difference_table(found: Mapping[str, Distances]) -> str:
    """Each other method's distance minus ours, case by case over all, in Markdown."""
    lines = [f"| beside `{OURS}` | mean | standard error | `{OURS}` nearer in |", "| --- | --- | --- | --- |"]
    others = set.intersection(*(set(of) for of in found.values())) - {OURS}
    differences = {
        other: [b - a for of in found.values() for a, b in zip(of[OURS], of[other], strict=True)]
        for other in others
        if all(len(of[other]) == len(of[OURS]) for of in found.values())
    }
    for other, values in sorted(differences.items(), key=lambda item: statistics.mean(item[1])):
        error = statistics.stdev(values) / math.sqrt(len(values))
        nearer = f"{sum(value > 0 for value in values)}/{len(values)}"
        lines.append(f"| `{other}` | {statistics.mean(values):+.2f} | {error:.2f} | {nearer} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def main() -> None:
    """Print both tables of the plans named on the command line."""
    if not sys.argv[1:]:
        raise SystemExit(__doc__)
    found = {plan: distances(plan) for plan in sys.argv[1:]}
    print(distance_table(found), difference_table(found), sep="\n\n")


if __name__ == "__main__":
    main()
