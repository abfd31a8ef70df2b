"""Metrics of model versions and of the disk they lie on."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import suppress

from sqlalchemy import func, select

from reconsent.exposition import Metric, Samples, Topic
from server.metrics.view import View
from server.names import MAIN
from server.persistence import ModelRegistry, VersionStatus
from server.persistence.tables import ModelRow

INFO = Metric(
    "reconsent_model_info",
    "gauge",
    "1 for the current model version",
    ("version", "kind", "status"),
    "once there is a model",
)
ROUND = Metric("reconsent_model_round", "gauge", "Round of the current model version", (), "as above")
CONTRIBUTORS = Metric(
    "reconsent_model_sites",
    "gauge",
    "Sites with updates in the current model version that were not unlearned since",
    (),
    "as above",
)
FORGOTTEN = Metric(
    "reconsent_model_forgotten_sites",
    "gauge",
    "Sites that the current model version has unlearned",
    (),
    "as above",
)
WRITTEN = Metric(
    "reconsent_model_timestamp_seconds",
    "gauge",
    "When the newest model version was registered, in seconds since 1970",
    (),
    "as above",
)
VERSIONS = Metric("reconsent_model_versions", "gauge", "Model versions by status", ("status",))
FILES = Metric("reconsent_model_files_bytes", "gauge", "Bytes of the model files that are kept")
DISK_FREE = Metric(
    "reconsent_state_disk_free_bytes",
    "gauge",
    "Bytes free for the server on the disk of the state directory",
    (),
    "where the directory can be read",
)
DISK_SIZE = Metric(
    "reconsent_state_disk_size_bytes",
    "gauge",
    "Size of the disk of the state directory",
    (),
    "as above",
)

TOPIC = Topic(
    "Model versions and disk",
    (INFO, ROUND, CONTRIBUTORS, FORGOTTEN, WRITTEN, VERSIONS, FILES, DISK_FREE, DISK_SIZE),
)


class Models:
    """Reads the registry, and asks the file system."""

    def collect(self, view: View, samples: Samples) -> None:
        """Fill in this topic's metrics."""
        latest = ModelRegistry(view.state).latest(MAIN, session=view.session)
        if latest is not None:
            samples.set(INFO, 1, latest.id, latest.kind, latest.status.value)
            samples.set(ROUND, latest.round)
            samples.set(CONTRIBUTORS, sum(latest.depends_on(site) for site in latest.lineage))
            # Of a site that only patients left there is a mark, and no name of a site.
            samples.set(FORGOTTEN, len(set(latest.forgotten) & latest.lineage.keys()))
        newest = view.session.scalar(select(func.max(ModelRow.created_at)))
        samples.set(WRITTEN, None if newest is None else newest.timestamp())
        by_status = select(ModelRow.status, func.count()).group_by(ModelRow.status)
        counts = Counter({row[0]: row[1] for row in view.session.execute(by_status)})
        for status in VersionStatus:
            samples.set(VERSIONS, counts[status.value], status.value)
        # Two versions of the same content share a file.
        kept = select(ModelRow.digest, ModelRow.bytes).where(~ModelRow.pruned).distinct().subquery()
        samples.set(FILES, float(view.session.scalar(select(func.sum(kept.c.bytes))) or 0))
        with suppress(OSError):
            disk = shutil.disk_usage(view.state.path)
            samples.set(DISK_FREE, disk.free)
            samples.set(DISK_SIZE, disk.total)
