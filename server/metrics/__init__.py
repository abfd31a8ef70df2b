"""The server's metrics: what a consortium's state tells Prometheus, whether or not a run is under way."""

from server.metrics.catalogue import CATALOGUE, METRICS
from server.metrics.collector import StateCollector

__all__ = ["CATALOGUE", "METRICS", "StateCollector"]
