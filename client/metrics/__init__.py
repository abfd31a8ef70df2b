"""A site's own metrics: what its log and policy tell its own Prometheus, and nobody else."""

from client.metrics.catalogue import CATALOGUE, METRICS
from client.metrics.collector import SiteCollector
from client.metrics.textfile import write_textfile

__all__ = ["CATALOGUE", "METRICS", "SiteCollector", "write_textfile"]
