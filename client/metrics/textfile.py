"""A site's metrics as a file for Prometheus' node exporter: no process of ours, and no port."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from client.metrics.collector import SiteCollector
from reconsent.errors import ConfigError
from reconsent.files import write_atomically


def write_textfile(collector: SiteCollector, path: Path) -> None:
    """Write the present values, whole or not at all, so that a scrape never reads half of them.

    Parameters
    ----------
    collector
        Of the site.
    path
        A ``.prom`` file in the node exporter's ``--collector.textfile.directory``.

    Raises
    ------
    ConfigError
        If the name does not end in ``.prom`` (it would be ignored), or the file cannot be written.
    """
    if path.suffix != ".prom":
        raise ConfigError(f"{path} would be ignored by the node exporter.", "Let its name end in .prom.")
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        write_atomically(path, generate_latest(registry))
        # The node exporter is another user.
        path.chmod(0o644)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.", "Check its directory.") from None
