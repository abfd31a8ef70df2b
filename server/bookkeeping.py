"""Makes rounds last, and finds again where a killed run was."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, get_args

from flwr.app import ArrayRecord
from sqlalchemy.orm import Session

from reconsent.errors import BarredError, ReconsentError, StateError
from server.names import MAIN as MAIN
from server.names import ORACLE as ORACLE
from server.persistence import (
    ModelRegistry,
    ModelVersion,
    Roster,
    RoundLog,
    RoundRecord,
    SiteOutcome,
    StateDirectory,
    VersionStatus,
)
from server.persistence.round_records import Outcome
from server.retention import Retention
from server.safekeeping import Safekeeping
from strategies import ContributionAveraging, RoundOutcome
from strategies import SiteOutcome as Exchanged
from strategies import messages as msg
from strategies.outcomes import Moved, TooFewRepliesError
from unlearning.contributions import discard

MOST = 2**53
"""No site has more examples, or works for more seconds."""


class Bookkeeping:
    """Writes each round in one transaction: model version, contributions, roster and log entry, or none.

    Parameters
    ----------
    state
        Open, writable state directory.
    anchor_rounds
        Training rounds whose model is kept for good.
    safekeeping
        Removes what has been kept long enough, in the transaction of each round.
    """

    def __init__(
        self,
        state: StateDirectory,
        anchor_rounds: Collection[int] = frozenset(),
        safekeeping: Safekeeping | None = None,
    ) -> None:
        self._state = state
        self._safekeeping = safekeeping
        self.roster = Roster(state)
        self.registry = ModelRegistry(state)
        self.log = RoundLog(state)
        self.retention = Retention(self.registry, self.log, anchor_rounds)
        self._moved: dict[str, dict[str, Moved]] = {}

    def version(self, line: str, *kinds: str) -> ModelVersion:
        """The newest version of ``line`` that is not revoked, of one of ``kinds`` if given.

        Raises
        ------
        StateError
            If there is none.
        """
        found = self.registry.latest(line, kinds=kinds) if kinds else self.registry.latest(line)
        if found is None:
            raise StateError(f"There is no model on line '{line}' yet.", "Train first.")
        return found

    def arrays(self, version: ModelVersion) -> ArrayRecord:
        """The model of ``version``, revoked or not: the caller answers for what becomes of it."""
        return msg.array_record(self.registry.load(version.id, force=True))

    def kept_models(self) -> dict[int, ModelVersion]:
        """The model that training stands at and its ancestors, if their files are kept, by round.

        The initial model is round 0. Left out are those that are revoked, and those that hold a site which
        was unlearned since: who goes back to one would bring it back.
        """
        known = {version.id: version for version in self.registry.all(MAIN)}
        newest = self.version(MAIN, "train", "unlearned", "initial")
        found: dict[int, ModelVersion] = {newest.round: newest}
        step = known.get(newest.parent or "")
        while step is not None:
            usable = not step.pruned and step.status is not VersionStatus.REVOKED
            clean = not any(step.depends_on(site) for site in newest.forgotten)
            if usable and clean and step.kind in ("train", "unlearned", "initial"):
                # An unlearned model has the round of the last retain round before it; it comes first here.
                found.setdefault(step.round, step)
            step = known.get(step.parent or "")
        return found

    def norms(self, line: str, *, first_round: int = 0) -> dict[str, list[float]]:
        """‖Δ‖ of the accepted updates of each site along ``line`` from ``first_round`` on, oldest first."""
        found: dict[str, list[float]] = {}
        for record in self.log.all(line):
            for site, outcome in record.sites.items():
                if (
                    record.round >= first_round
                    and outcome.outcome == "ok"
                    and outcome.update_norm is not None
                ):
                    found.setdefault(site, []).append(outcome.update_norm)
        return found

    def moved(self, work: str, sites: Mapping[str, Moved]) -> None:
        """Put the model bytes of messages of no round on record with the next round that is kept."""
        known = self._moved.setdefault(work, {})
        for site, bytes_ in sites.items():
            known[site] = known.get(site, Moved()).plus(bytes_.down, bytes_.up)

    def commit(
        self,
        strategy: ContributionAveraging,
        outcome: RoundOutcome,
        line: str,
        parent: ModelVersion,
        evaluation: Mapping[str, Mapping[str, float]],
        *,
        method: str | None = None,
    ) -> ModelVersion:
        """Make a round last; returns the model version it ended with (``parent`` if it was taken back).

        Raises
        ------
        BarredError
            If a site whose update is in it was barred meanwhile; nothing of the round is kept, but that its
            sites were sent the model is on record.
        """
        self.moved("evaluate", strategy.evaluation_bytes())
        try:
            return self._committed(strategy, outcome, line, parent, evaluation, method)
        except BarredError:
            self._note_failed(line, outcome.kind, outcome.round, outcome.sites, outcome.seconds)
            raise

    def _committed(
        self,
        strategy: ContributionAveraging,
        outcome: RoundOutcome,
        line: str,
        parent: ModelVersion,
        evaluation: Mapping[str, Mapping[str, float]],
        method: str | None,
    ) -> ModelVersion:
        with self._state.session() as session:
            version = parent
            if outcome.accepted:
                if line == MAIN:
                    # First: if a site was barred meanwhile, not even a file of what it sent may come to be.
                    self.roster.took_part(outcome.weights, outcome.round, session=session)
                version = self.registry.add(
                    msg.viewed_arrays(outcome.arrays),
                    line=line,
                    round=outcome.round,
                    kind=outcome.kind,
                    parent=parent.id,
                    sites=outcome.weights,
                    method=method,
                    session=session,
                )
                self._discard_later(session, strategy.commit(outcome.round, session=session))
                if self._safekeeping is not None and strategy.cache is not None:
                    self._safekeeping.expire(strategy.cache, session)
            self.log.append(_record(outcome, line, version, evaluation, self._moved), session=session)
            self.retention.prune(version, evaluated=bool(evaluation), session=session)
            # Not before: of a round that was not kept, they go on record with the next one.
            self._state.after_commit(session, self._moved.clear)
        return version

    def watched(self, rounds: Iterable[RoundOutcome], line: str) -> Iterator[RoundOutcome]:
        """``rounds`` of ``line``, with a record of one that fails for want of replies; the error goes on."""
        try:
            yield from rounds
        except TooFewRepliesError as error:
            self._note_failed(line, error.kind, error.round, error.sites, error.seconds)
            raise

    def _note_failed(
        self, line: str, kind: str, round: int, sites: Iterable[Exchanged], seconds: float
    ) -> None:
        told = {site.site: _site(site) for site in sites}
        # On a full disk it cannot be noted; why the round failed matters more.
        with suppress(ReconsentError):
            self.log.append_failed(
                RoundRecord(line=line, kind=kind, round=round, sites=told, seconds=seconds)
            )

    def _discard_later(self, session: Session, files: list[Any]) -> None:
        self._state.after_commit(session, lambda: discard(files))


def _record(
    outcome: RoundOutcome,
    line: str,
    version: ModelVersion,
    evaluation: Mapping[str, Mapping[str, float]],
    moved: Mapping[str, Mapping[str, Moved]],
) -> RoundRecord:
    return RoundRecord(
        line=line,
        kind=outcome.kind,
        round=outcome.round,
        sites={site.site: _site(site) for site in outcome.sites},
        metrics={
            "accepted": outcome.accepted,
            "evaluation": {site: dict(values) for site, values in evaluation.items()},
            "incoming": outcome.incoming(),
            "notes": dict(outcome.notes),
            "steps": dict(outcome.steps),
            # Beside those of the round itself, which are with its sites.
            "moved": {
                work: {site: asdict(bytes_) for site, bytes_ in sites.items()}
                for work, sites in moved.items()
                if sites
            },
        },
        seconds=outcome.seconds,
        model_version=version.id,
    )


def _site(site: Exchanged) -> SiteOutcome:
    known: dict[str, Outcome] = {kind: kind for kind in get_args(Outcome)}
    reason = site.reason if site.outcome in known else f"{site.outcome}: {site.reason}"
    loss = site.metrics.get(msg.TRAIN_LOSS)
    return SiteOutcome(
        outcome=known.get(site.outcome, "failed"),
        reason=reason,
        num_examples=int(_amount(site.metrics.get(msg.NUM_EXAMPLES, 0.0))),
        update_norm=site.norm if site.outcome == "ok" else None,
        loss=loss if loss is not None and math.isfinite(loss) else None,
        seconds=_amount(site.metrics.get(msg.SECONDS, 0.0)),
        bytes_up=site.bytes_up,
        bytes_down=site.bytes_down,
        privacy={
            key: site.metrics[key]
            for key in sorted(msg.PRIVACY_METRICS & site.metrics.keys())
            if 0 <= site.metrics[key] < MOST
        },
    )


def _amount(told: float) -> float:
    """What a site says of itself, which may be anything if its reply was refused; 0 if it makes no sense."""
    return told if math.isfinite(told) and 0 <= told < MOST else 0.0
