"""Metrics of rounds, from their records: durations, replies, bytes, norms, losses.

Records are never changed, so each scrape reads only those that came since the last one.
"""

from __future__ import annotations

import datetime as dt
import heapq
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import func, select

from reconsent.exposition import DurationCounts, Metric, Samples, Topic
from server.metrics.privacy import Privacy
from server.metrics.quality import Quality
from server.metrics.refusals import PRIVACY_BUDGET, REASONS, reason_code
from server.metrics.sites import SiteState
from server.metrics.unlearning import Unlearning
from server.metrics.view import View
from server.names import MAIN, ORACLE
from server.persistence.tables import FailedRoundRow, ModelRow, RoundRow
from strategies import messages as msg

PHASES = ("train", "unlearn")
ROUND_OUTCOMES = ("completed", "partial", "taken_back", "failed")
OUTCOMES = ("ok", "refused", "failed", "timeout", "withdrawn")
WORKS = ("train", "evaluate", "initialise")
RECENTLY = 10
"""Rounds that count as recent: by their number, since one may take seconds or a day."""

ROUNDS = Metric(
    "reconsent_rounds_total",
    "counter",
    "Rounds by phase (train, unlearn, or oracle in a simulation) and outcome: completed with every site that "
    "was asked, partial without some, taken_back, or failed with too few usable replies, to be repeated",
    ("phase", "outcome"),
)
DURATION = Metric(
    "reconsent_round_duration_seconds", "histogram", "Duration of a round at the server", ("phase",)
)
STEP = Metric(
    "reconsent_round_step_duration_seconds",
    "histogram",
    "Duration of a part of a round at the server: prepare, replies (waiting for and screening them), "
    "average, and gate (asking the remaining sites what an ascent step cost)",
    ("phase", "step"),
    "for rounds of releases that record it",
)
WORK = Metric(
    "reconsent_site_work_duration_seconds",
    "histogram",
    "A site's own working time for one message, as it reported it",
    ("site", "work"),
    "for sites that answered",
)
LAST = Metric(
    "reconsent_round_last_timestamp_seconds",
    "gauge",
    "When the newest round of a phase was committed, in seconds since 1970",
    ("phase",),
    "once there is one",
)
REPLIES = Metric(
    "reconsent_replies_total",
    "counter",
    "What became of each site that was asked in a round: ok; refused, by the site or for what it sent; "
    "failed; timeout, where nothing came in time; withdrawn, where the site was barred meanwhile",
    ("site", "phase", "outcome"),
)
UNUSABLE = Metric(
    "reconsent_replies_unusable_total",
    "counter",
    "Replies that were not averaged, by reason",
    ("site", "reason"),
)
BYTES = Metric(
    "reconsent_model_bytes_total",
    "counter",
    "Bytes of models received from a site (up) and sent to it (down), by work: train (rounds of training and "
    "of unlearning), evaluate (measuring image quality, and what an ascent step cost), initialise (building "
    "the untrained model); the last two are counted with the next round that is kept; without a simulation's "
    "oracle",
    ("site", "work", "direction"),
)
NORM = Metric(
    "reconsent_update_norm",
    "gauge",
    "Euclidean norm of a site's last accepted update",
    ("site",),
    "for active sites, once one was accepted",
)
LOSS = Metric(
    "reconsent_training_loss",
    "gauge",
    "A site's mean training loss in its last round",
    ("site",),
    "for active sites, once they reported one",
)
LAST_REPLY = Metric(
    "reconsent_site_last_reply_timestamp_seconds",
    "gauge",
    "When the newest round with an accepted reply of the site was committed, in seconds since 1970",
    ("site",),
    "for active sites, once there is one",
)
MISSED = Metric(
    "reconsent_site_rounds_missed",
    "gauge",
    "Rounds, failed ones among them, since the last one with a usable reply of the site; since it was "
    "admitted if it has answered in none since then",
    ("site",),
    "for active sites that were admitted",
)
RECENT = Metric(
    "reconsent_site_recent_replies",
    "gauge",
    f"Of the last {RECENTLY} rounds in which the site was asked, failed ones among them: in how many its "
    "reply was of use (usable), and in how many not (unusable)",
    ("site", "outcome"),
    "for active sites that were asked since they were admitted",
)

TOPIC = Topic(
    "Rounds and replies",
    (ROUNDS, DURATION, STEP, WORK, LAST, REPLIES, UNUSABLE, BYTES, NORM, LOSS, LAST_REPLY, MISSED, RECENT),
)


class Rounds:
    """Counts what the records of rounds say, and hands each on to the quality and the unlearning."""

    def __init__(self) -> None:
        self._last, self._last_failed = 0, 0
        self._unlearned: list[dt.datetime] = []
        self._parents: dict[str, str | None] = {}
        self._forget()

    def read(self, view: View) -> None:
        """Take up the records that came since the last call."""
        newest = view.session.scalar(select(func.max(RoundRow.number))) or 0
        newest_failed = view.session.scalar(select(func.max(FailedRoundRow.number))) or 0
        if newest < self._last or newest_failed < self._last_failed:
            # An older state was restored: what was counted is not there any more.
            self._forget()
        rounds = select(RoundRow).where(RoundRow.number > self._last).order_by(RoundRow.number)
        if newest > self._last:
            unlearned = select(ModelRow.created_at).where(ModelRow.line == MAIN, ModelRow.kind == "unlearned")
            self._unlearned = sorted(view.session.scalars(unlearned))
            retained = select(ModelRow.id, ModelRow.parent).where(
                ModelRow.line == MAIN, ModelRow.kind == "retain"
            )
            self._parents = {row.id: row.parent for row in view.session.execute(retained)}
        failures = select(FailedRoundRow).where(FailedRoundRow.number > self._last_failed)
        failed = view.session.scalars(failures.order_by(FailedRoundRow.number)).all()
        kept = view.session.scalars(rounds.execution_options(yield_per=200))
        # In the order in which they happened: the last word on a site's privacy counts.
        both: Iterable[RoundRow | FailedRoundRow] = heapq.merge(kept, failed, key=_ended_at)
        for row in both:
            if isinstance(row, RoundRow):
                self._take(row)
                self._last = row.number
            else:
                self._take_failed(row)
                self._last_failed = row.number
            view.session.expunge(row)

    def collect(self, samples: Samples, sites: Mapping[str, SiteState]) -> None:
        """Fill in this topic's metrics.

        Parameters
        ----------
        samples
            Where to.
        sites
            By name: their counters begin at zero, so that the first increase is seen; of those that are not
            active nothing is told but what happened.
        """
        for phase in (*PHASES, *sorted(self._phases - set(PHASES))):
            for outcome in ROUND_OUTCOMES:
                samples.set(ROUNDS, self._rounds[phase, outcome], phase, outcome)
            if phase in self._phases:
                samples.distribution(DURATION, self._durations[phase], phase)
                samples.set(LAST, self._ended[phase], phase)
        for (phase, step), counts in sorted(self._steps.items()):
            samples.distribution(STEP, counts, phase, step)
        for (site, work), counts in sorted(self._work.items()):
            samples.distribution(WORK, counts, site, work)
        for site in sorted({*sites, *self._seen}):
            self._counts_of(samples, site)
            known = sites.get(site)
            if known is not None and known.active:
                self._since_admitted(samples, site, known.admitted)
                samples.set(NORM, self._norms.get(site), site)
                samples.set(LOSS, self._losses.get(site), site)
                samples.set(LAST_REPLY, self._replied.get(site), site)

    def _since_admitted(self, samples: Samples, site: str, admitted: float | None) -> None:
        if admitted is None:
            return
        unanswered = self._main_rounds[self._answered_at.get(site, 0) :]
        samples.set(MISSED, sum(at > admitted for at in unanswered), site)
        recent = [usable for at, usable in self._recent.get(site, ()) if at > admitted]
        if recent:
            samples.set(RECENT, recent.count(True), site, "usable")
            samples.set(RECENT, recent.count(False), site, "unusable")

    def _counts_of(self, samples: Samples, site: str) -> None:
        for phase in PHASES:
            for outcome in OUTCOMES:
                samples.set(REPLIES, self._replies[site, phase, outcome], site, phase, outcome)
        for reason in REASONS:
            samples.set(UNUSABLE, self._unusable[site, reason], site, reason)
        for work in WORKS:
            for direction in ("up", "down"):
                samples.set(BYTES, self._bytes[site, work, direction], site, work, direction)

    def _forget(self) -> None:
        self._last, self._last_failed = 0, 0
        self._main_rounds: list[float] = []
        self._phases: set[str] = set()
        self._seen: set[str] = set()
        self._rounds: Counter[tuple[str, str]] = Counter()
        self._replies: Counter[tuple[str, str, str]] = Counter()
        self._bytes: Counter[tuple[str, str, str]] = Counter()
        self._unusable: Counter[tuple[str, str]] = Counter()
        self._durations: dict[str, DurationCounts] = {}
        self._steps: dict[tuple[str, str], DurationCounts] = {}
        self._work: dict[tuple[str, str], DurationCounts] = {}
        self._ended: dict[str, float] = {}
        self._model: str | None = None
        self._norms: dict[str, float] = {}
        self._losses: dict[str, float] = {}
        self._replied: dict[str, float] = {}
        self._answered_at: dict[str, int] = {}
        self._recent: dict[str, deque[tuple[float, bool]]] = {}
        self.quality, self.unlearning, self.privacy = Quality(), Unlearning(), Privacy()

    def _take(self, row: RoundRow) -> None:
        phase = _phase_of(row)
        at = row.created_at.timestamp()
        self._phases.add(phase)
        self._rounds[phase, _outcome_of(row)] += 1
        self._durations.setdefault(phase, DurationCounts()).observe(row.seconds)
        self._ended[phase] = at
        metrics: dict[str, Any] = row.metrics
        for step, seconds in metrics.get("steps", {}).items():
            self._observe_step(phase, step, seconds)
        notes = metrics.get("notes", {})
        if "gate-seconds" in notes:
            self._observe_step(phase, "gate", notes["gate-seconds"])
        if phase == "oracle":
            return
        self._main_rounds.append(at)
        for site, told in row.sites.items():
            self._take_site(phase, site, told, at)
        for site, values in metrics.get("evaluation", {}).items():
            self._observe_work(site, "evaluate", values.get(msg.SECONDS))
        for work, sites in metrics.get("moved", {}).items():
            for site, moved in sites.items():
                self._seen.add(site)
                for direction, size in moved.items():
                    self._bytes[site, work, direction] += size
        ended, version = bisect_left(self._unlearned, row.created_at), row.model_version
        # A round that was taken back ends with the model that it began with.
        began_with = version if version is None else self._parents.get(version, version)
        goes_on = self._model in (version, began_with)
        self.quality.take(phase, at, metrics, ended=ended, goes_on=goes_on)
        self._model = version
        self.unlearning.take(phase, at, bool(metrics.get("accepted", True)), notes)

    def _take_failed(self, row: FailedRoundRow) -> None:
        """Nothing of it was kept: it counts for who answered, and for nothing that is told of the model."""
        phase = _phase_of(row)
        self._rounds[phase, "failed"] += 1
        if phase == "oracle":
            return
        self._main_rounds.append(row.created_at.timestamp())
        for site, told in row.sites.items():
            self._count_reply(phase, site, told)
            if told["outcome"] == "ok":
                self.privacy.take(site, told.get("privacy") or {})

    def _take_site(self, phase: str, site: str, told: dict[str, Any], at: float) -> None:
        self._count_reply(phase, site, told)
        if told["outcome"] != "ok":
            return
        self._replied[site] = at
        self._observe_work(site, "train", told.get("seconds"))
        self.privacy.take(site, told.get("privacy") or {})
        for known, value in ((self._norms, told.get("update_norm")), (self._losses, told.get("loss"))):
            if value is not None:
                known[site] = value

    def _count_reply(self, phase: str, site: str, told: dict[str, Any]) -> None:
        outcome = told["outcome"]
        self._seen.add(site)
        self._replies[site, phase, outcome] += 1
        self._bytes[site, "train", "up"] += told.get("bytes_up", 0)
        self._bytes[site, "train", "down"] += told.get("bytes_down", 0)
        recent = self._recent.setdefault(site, deque(maxlen=RECENTLY))
        recent.append((self._main_rounds[-1], outcome == "ok"))
        if outcome == "ok":
            self._answered_at[site] = len(self._main_rounds)
        else:
            code = reason_code(outcome, told.get("reason", ""))
            self._unusable[site, code] += 1
            if code == PRIVACY_BUDGET:
                self.privacy.sit_out(site)

    def _observe_step(self, phase: str, step: str, seconds: float) -> None:
        self._steps.setdefault((phase, step), DurationCounts()).observe(seconds)

    def _observe_work(self, site: str, work: str, seconds: float | None) -> None:
        if seconds is not None:
            self._work.setdefault((site, work), DurationCounts()).observe(seconds)


def _ended_at(row: RoundRow | FailedRoundRow) -> dt.datetime:
    return row.created_at


def _phase_of(row: RoundRow | FailedRoundRow) -> str:
    return "oracle" if row.line == ORACLE else "train" if row.kind == "train" else "unlearn"


def _outcome_of(row: RoundRow) -> str:
    if not row.metrics.get("accepted", True):
        return "taken_back"
    whole = all(told["outcome"] == "ok" for told in row.sites.values())
    return "completed" if whole else "partial"
