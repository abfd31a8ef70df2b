"""Samples, their declarations, and histograms that are counted from records."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from reconsent.exposition import DurationCounts, Metric, Samples

TOTAL = Metric("reconsent_things_total", "counter", "Things", ("kind",))
NOW = Metric("reconsent_thing_seconds", "gauge", "A thing")
TIME = Metric("reconsent_work_seconds", "histogram", "Work")


def exposed(samples: Samples) -> str:
    class Fixed(Collector):
        def collect(self):  # type: ignore[no-untyped-def]
            return samples.families()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Fixed())
    return generate_latest(registry).decode()


def test_unknown_values_are_left_out() -> None:
    """None, NaN and infinity make no series, and a family without series is not exposed at all."""
    samples = Samples((TOTAL, NOW))
    for value in (None, math.nan, math.inf):
        samples.set(NOW, value)
    samples.set(TOTAL, 0, "a")
    text = exposed(samples)
    assert 'reconsent_things_total{kind="a"} 0.0' in text
    assert "reconsent_thing_seconds" not in text
    assert samples.value(NOW) is None


def test_labels_are_those_of_the_declaration() -> None:
    """A series with too few or too many labels is a fault of the program."""
    with pytest.raises(ValueError, match="reconsent_things_total"):
        Samples((TOTAL,)).set(TOTAL, 1)


def test_label_values_are_escaped() -> None:
    """Quotation marks, backslashes and line breaks in a label come back as they were."""
    samples = Samples((TOTAL,))
    samples.set(TOTAL, 3, 'a"\\\nb')
    (family,) = text_string_to_metric_families(exposed(samples))
    assert family.samples[0].labels == {"kind": 'a"\\\nb'}


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True)))
def test_histograms_count_each_duration_once(values: list[float]) -> None:
    """The last bucket is the number of durations, buckets rise, and what is no duration is left out."""
    counts = DurationCounts((0.5, 1.0, 10.0))
    for value in values:
        counts.observe(value)
    durations = [value for value in values if math.isfinite(value) and value >= 0]
    cumulative = counts.cumulative()
    assert cumulative[-1] == ("+Inf", float(len(durations)))
    assert [number for _, number in cumulative] == [
        sum(value <= bound for value in durations) for bound in (0.5, 1.0, 10.0, math.inf)
    ]
    assert math.isclose(counts.sum, sum(durations), rel_tol=1e-9) or counts.sum == sum(durations)


def test_histograms_are_exposed_with_sum_and_count() -> None:
    """Prometheus' parser finds buckets, sum and count."""
    samples, counts = Samples((TIME,)), DurationCounts((1.0, 2.0))
    for value in (0.5, 1.5, 4.0):
        counts.observe(value)
    samples.distribution(TIME, counts)
    (family,) = text_string_to_metric_families(exposed(samples))
    assert family.type == "histogram"
    assert {s.name: s.value for s in family.samples if "bucket" not in s.name} == {
        "reconsent_work_seconds_count": 3.0,
        "reconsent_work_seconds_sum": 6.0,
    }
