"""What a scrape shows."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from server.metrics import StateCollector


def exposed(collector: StateCollector) -> str:
    """The page, as Prometheus reads it."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()
