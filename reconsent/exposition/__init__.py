"""How metrics are declared, gathered and served to Prometheus, at the server and at a site alike."""

from reconsent.exposition.histogram import DurationCounts
from reconsent.exposition.metric import Metric, Samples, Topic
from reconsent.exposition.web_config import WebConfig, WebConfigFile
from reconsent.exposition.web_server import MetricsServer

__all__ = ["DurationCounts", "Metric", "MetricsServer", "Samples", "Topic", "WebConfig", "WebConfigFile"]
