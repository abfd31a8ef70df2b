"""A histogram of durations that is counted from records, so that it outlives the process that counts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0)
"""Upper bounds of the buckets in seconds: from an averaging in a simulation to a round of a slow hospital."""

LONG_BOUNDS = (1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 3 * 86400.0, 7 * 86400.0, 31 * 86400.0)
"""The same for the stages of a withdrawal, which take from seconds to a month."""


@dataclass(slots=True)
class DurationCounts:
    """How many durations fell under each bound, and their sum.

    Attributes
    ----------
    bounds
        Upper bounds in seconds, rising, each inclusive as Prometheus' ``le`` is; infinity is added.
    counts
        One number a bucket, not cumulative.
    sum
        Of all durations, in seconds.
    """

    bounds: tuple[float, ...] = BOUNDS
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one duration; negative ones and those that are not finite are left out."""
        if not math.isfinite(seconds) or seconds < 0:
            return
        index = next((i for i, bound in enumerate(self.bounds) if seconds <= bound), len(self.bounds))
        self.counts[index] += 1
        self.sum += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Bound → how many durations were at most that, as prometheus_client takes it."""
        found, total = [], 0
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            total += count
            found.append(("+Inf" if bound == math.inf else f"{bound:g}", float(total)))
        return found
