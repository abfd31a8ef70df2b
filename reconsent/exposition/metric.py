"""A metric as it is declared, and the samples of one scrape, checked against the declarations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family

from reconsent.exposition.histogram import DurationCounts

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A family of time series, declared once: exposition, documentation and tests read this.

    Attributes
    ----------
    name
        As it is exposed, with prefix, unit and, for counters, ``_total``.
    kind
        Prometheus' type.
    help
        One sentence without a full stop.
    labels
        Names of its labels; their values are few.
    seen_when
        When the family is exposed, if not always: an unknown value is left out, never written as zero.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    seen_when: str = ""


@dataclass(frozen=True, slots=True)
class Topic:
    """Metrics that are documented together."""

    title: str
    metrics: tuple[Metric, ...]


@dataclass(slots=True)
class Samples:
    """The values of one scrape.

    Parameters
    ----------
    declared
        The metrics that may be set; others are a fault of the program.
    """

    declared: Iterable[Metric]
    _values: dict[str, dict[tuple[str, ...], float | DurationCounts]] = field(default_factory=dict)

    def set(self, metric: Metric, value: float | None, *labels: str) -> None:
        """Set one series; ``None`` and values that are not finite mean unknown, and leave it out.

        Parameters
        ----------
        metric
            A counter or a gauge that was declared.
        value
            In the metric's base unit.
        labels
            Values of its labels, in the order of the declaration.

        Raises
        ------
        ValueError
            If the number of labels is not that of the declaration.
        """
        if value is not None and math.isfinite(value):
            self._put(metric, labels, value)

    def distribution(self, metric: Metric, counts: DurationCounts, *labels: str) -> None:
        """Set one histogram; as :meth:`set`."""
        self._put(metric, labels, counts)

    def value(self, metric: Metric, *labels: str) -> float | None:
        """What :meth:`set` was given; ``None`` if the series is left out."""
        found = self._values.get(metric.name, {}).get(labels)
        return None if found is None or isinstance(found, DurationCounts) else found

    def families(self) -> Iterator[Family]:
        """Everything that was set, as prometheus_client's families, in the order of the declarations."""
        for metric in self.declared:
            values = self._values.get(metric.name)
            if values:
                yield _family(metric, values)

    def _put(self, metric: Metric, labels: tuple[str, ...], value: float | DurationCounts) -> None:
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, got {labels}")
        self._values.setdefault(metric.name, {})[labels] = value


def _family(metric: Metric, values: dict[tuple[str, ...], float | DurationCounts]) -> Family:
    text = f"{metric.help}."
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, text, labels=metric.labels)
        for labels, counts in values.items():
            if isinstance(counts, DurationCounts):
                histogram.add_metric(labels, counts.cumulative(), counts.sum)
        return histogram
    plain = {labels: value for labels, value in values.items() if not isinstance(value, DurationCounts)}
    family: CounterMetricFamily | GaugeMetricFamily
    if metric.kind == "counter":
        family = CounterMetricFamily(metric.name.removesuffix("_total"), text, labels=metric.labels)
    else:
        family = GaugeMetricFamily(metric.name, text, labels=metric.labels)
    for labels, value in plain.items():
        family.add_metric(labels, value)
    return family
