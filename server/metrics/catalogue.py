"""Every metric of the server's exporter, by topic: the one list for exposition, documents and tests."""

from __future__ import annotations

from reconsent.exposition import Metric, Topic
from server.metrics import (
    certificates,
    evidence,
    ledger,
    models,
    privacy,
    quality,
    rounds,
    runs,
    simulated,
    sites,
    unlearning,
    withdrawals,
)

BUILD = Metric(
    "reconsent_build_info",
    "gauge",
    "1, with the releases of Reconsent and Flower",
    ("version", "flwr_version"),
)
READABLE = Metric(
    "reconsent_state_readable",
    "gauge",
    "1 if the state could be read in this scrape, 0 if only this is known",
)
SCRAPE = Metric(
    "reconsent_collection_duration_seconds",
    "gauge",
    "Duration of the reading for this scrape",
    seen_when="if the state could be read",
)

CATALOGUE: tuple[Topic, ...] = (
    Topic("The exporter", (BUILD, READABLE, SCRAPE)),
    runs.TOPIC,
    rounds.TOPIC,
    quality.TOPIC,
    unlearning.TOPIC,
    evidence.TOPIC,
    simulated.TOPIC,
    sites.TOPIC,
    withdrawals.TOPIC,
    privacy.TOPIC,
    ledger.TOPIC,
    models.TOPIC,
    certificates.TOPIC,
)

METRICS: tuple[Metric, ...] = tuple(metric for topic in CATALOGUE for metric in topic.metrics)
