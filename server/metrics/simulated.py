"""Metrics of what a simulation measured beside its oracle: they are of a simulation, and no evidence."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select

from reconsent.exposition import Metric, Samples, Topic
from server.metrics.view import View
from server.names import MAIN
from server.persistence.tables import ModelRow

MOST_STEPS = 8

ORACLE = Metric(
    "reconsent_simulation_oracle_gap_decibels",
    "gauge",
    "PSNR of the unlearned model less that of the oracle, on retain-test, forget-test and forget-train, as a "
    "simulation measured it at its end, with a certificate or without one",
    ("part",),
    "once results.json beside the state directory has it, of the newest unlearned model",
)
RELEARN = Metric(
    "reconsent_simulation_relearn_gap_decibels",
    "gauge",
    "PSNR of the unlearned model less that of the oracle, after both were fine-tuned for so many steps on "
    f"fresh images of the withdrawn organ; the first {MOST_STEPS} numbers of steps",
    ("steps",),
    "as above",
)
AT = Metric(
    "reconsent_simulation_measured_timestamp_seconds",
    "gauge",
    "When the results with a simulation's gaps were written, in seconds since 1970",
    seen_when="as above",
)

TOPIC = Topic("Simulation", (ORACLE, RELEARN, AT))


@dataclass(frozen=True, slots=True)
class Gaps:
    """What a simulation found, in dB.

    Attributes
    ----------
    sha256
        Digest of the unlearned model that it was found of.
    oracle
        By set: ``retain-test``, ``forget-test``, ``forget-train``.
    relearn
        By steps.
    at
        When the results were written.
    """

    sha256: str
    oracle: Mapping[str, float]
    relearn: Mapping[int, float]
    at: dt.datetime


def collect_gaps(gaps: Gaps | None, view: View, samples: Samples) -> None:
    """Fill in this topic's metrics, if the results are of the model that was unlearned last."""
    if gaps is None or not (gaps.oracle or gaps.relearn):
        return
    row = ModelRow
    newest = select(row.digest).where(row.line == MAIN, row.kind == "unlearned").order_by(row.number.desc())
    if view.session.scalar(newest.limit(1)) != gaps.sha256:
        return
    samples.set(AT, gaps.at.timestamp())
    for part, value in gaps.oracle.items():
        samples.set(ORACLE, value, part)
    for steps in sorted(gaps.relearn)[:MOST_STEPS]:
        samples.set(RELEARN, gaps.relearn[steps], str(steps))
