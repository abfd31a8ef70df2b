"""What was measured of an unlearning, against limits that were fixed before it ran."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from unlearning.verification.bootstrap import Interval

FEW_PATIENTS = 10
"""With fewer, an interval from resampling is too narrow."""


class About(StrEnum):
    """What a measurement can speak about."""

    FORGETTING = "forgetting"
    UTILITY = "utility"


@dataclass(frozen=True, slots=True)
class Limit:
    """Where a figure must lie, bounds included; ``None``: no bound."""

    low: float | None
    high: float | None

    def admits(self, value: float) -> bool:
        """Whether ``value`` is a number and within the bounds."""
        above = self.low is None or value >= self.low
        return math.isfinite(value) and above and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measurement, not judged yet: whoever measures does not choose the limit.

    Attributes
    ----------
    name
        Name of the check, and of the set after a slash where there are several: ``oracle-gap/forget-test``.
    about
        What it speaks about.
    value, unit
        What was measured.
    before
        The same of the model before the unlearning: what there was to see. ``None`` if unknown.
    words
        One sentence for a reader who is no expert.
    limits
        What the check cannot show, in plain words.
    interval
        Of the value, over the patients it was measured on; ``None`` where no figures of single volumes are
        at hand, or of one patient only.
    """

    name: str
    about: About
    value: float
    unit: str
    before: float | None = None
    words: str = ""
    limits: str = ""
    interval: Interval | None = None

    @property
    def uncertainty(self) -> str:
        """How sure the value is, in words."""
        if self.interval is None:
            return "No confidence interval: figures of single volumes of several patients are not on record."
        low, high = (f"{bound:+.3g}".replace("-", "−") for bound in (self.interval.low, self.interval.high))
        level, patients = f"{self.interval.level:.0%}".replace("%", " %"), self.interval.patients
        few = " (too narrow for so few)" if patients < FEW_PATIENTS else ""
        return f"{level} interval by resampling {patients} patients{few}: {low} to {high} {self.unit}."

    @property
    def family(self) -> str:
        """The name without the set: a limit may be fixed for all sets of a check."""
        return self.name.partition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A figure with the limit that was fixed for it; ``limit`` is ``None`` if none was, and then it fails."""

    figure: Figure
    limit: Limit | None

    @property
    def name(self) -> str:
        """Of the figure."""
        return self.figure.name

    @property
    def about(self) -> About:
        """Of the figure."""
        return self.figure.about

    @property
    def passed(self) -> bool:
        """Whether a limit was fixed and is met."""
        return self.limit is not None and self.limit.admits(self.figure.value)

    @property
    def blind(self) -> bool:
        """Whether the model before met the limit too, so that passing shows nothing."""
        before = self.figure.before
        return self.limit is not None and before is not None and self.limit.admits(before)


def judge(figures: Iterable[Figure], limits: Mapping[str, Limit]) -> tuple[Evidence, ...]:
    """Each figure with the limit fixed for its name, or else for its family."""
    return tuple(
        Evidence(figure=figure, limit=limits.get(figure.name, limits.get(figure.family)))
        for figure in figures
    )
