"""Metrics of runs: which one is under way, how far it is, and how earlier ones ended."""

from __future__ import annotations

from sqlalchemy import func, select

from reconsent.exposition import Metric, Samples, Topic
from server.metrics.view import View
from server.names import MAIN, RUN, TARGET
from server.persistence import RoundLog, RunProgress
from server.persistence.tables import RunEventRow

INFO = Metric(
    "reconsent_run_info",
    "gauge",
    "1 for the last run, with what it was asked and how it stands",
    ("run", "task", "status"),
    "once a run was started by `reconsent train` and the like",
)
ACTIVE = Metric(
    "reconsent_run_active",
    "gauge",
    "1 while a run is under way; one that was killed stays 1 until it is resumed",
    seen_when="as above",
)
ENDED = Metric("reconsent_runs_ended_total", "counter", "Runs that ended", ("outcome",))
LAST_EVENT = Metric(
    "reconsent_run_last_event_timestamp_seconds",
    "gauge",
    "When a run last told of anything, in seconds since 1970",
    seen_when="once a run told of something",
)
DONE = Metric("reconsent_training_rounds", "gauge", "Training rounds that are done")
ASKED = Metric(
    "reconsent_training_rounds_target",
    "gauge",
    "Training rounds that there shall be, as was asked; never less than there are",
)
STAGE_DONE = Metric(
    "reconsent_stage_rounds",
    "gauge",
    "Rounds done of the newest stretch of each stage",
    ("stage",),
    "for stages that were begun (train, continue, unlearn, oracle)",
)
STAGE_PLANNED = Metric(
    "reconsent_stage_rounds_planned",
    "gauge",
    "Rounds planned of the newest stretch of each stage",
    ("stage",),
    "as above",
)

TOPIC = Topic(
    "Runs and their progress",
    (INFO, ACTIVE, ENDED, LAST_EVENT, DONE, ASKED, STAGE_DONE, STAGE_PLANNED),
)


class Runs:
    """Reads the last run and its progress."""

    def collect(self, view: View, samples: Samples) -> None:
        """Fill in this topic's metrics."""
        progress = RunProgress(view.state)
        run = progress.get(RUN, session=view.session)
        if run is not None:
            samples.set(INFO, 1, run["id"], run["task"], run["status"])
            samples.set(ACTIVE, run["status"] == "running")
        done = RoundLog(view.state).count(MAIN, "train", session=view.session)
        samples.set(DONE, done)
        samples.set(ASKED, max(done, int(progress.get(TARGET, 0, session=view.session))))
        self._events(view, samples)

    @staticmethod
    def _events(view: View, samples: Samples) -> None:
        row, session = RunEventRow, view.session
        ended = select(row.kind, func.count()).where(row.kind.in_(("done", "failed"))).group_by(row.kind)
        counts: dict[str, int] = {found[0]: found[1] for found in session.execute(ended)}
        samples.set(ENDED, counts.get("done", 0), "completed")
        samples.set(ENDED, counts.get("failed", 0), "failed")
        newest = session.scalar(select(row.at).order_by(row.number.desc()).limit(1))
        samples.set(LAST_EVENT, None if newest is None else newest.timestamp())
        last = select(func.max(row.number)).where(row.stage != "").group_by(row.stage)
        for stage, index, total in session.execute(
            select(row.stage, row.index, row.total).where(row.number.in_(last))
        ):
            samples.set(STAGE_DONE, index, stage)
            samples.set(STAGE_PLANNED, total, stage)
