"""Runs a method of unlearning through its rounds, each of which is recorded: a killed run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flwr.app import ArrayRecord

from reconsent.errors import ContributionError, RoundError, WithdrawalError
from reconsent.faults import reached
from server.accountability import Accountability
from server.bookkeeping import MAIN
from server.checkpoint import Checkpoint, Checkpoints
from server.contribution_entries import ContributionEntries
from server.events import Event, announce
from server.persistence import ModelVersion, WithdrawalRecord, Withdrawals
from strategies import RoundOutcome, UnlearningStrategy
from strategies import messages as msg
from unlearning.contributions import discard
from unlearning.withdrawal import WithdrawalState

if TYPE_CHECKING:
    from server.coordinator import Coordinator

ELSEWHERE = (WithdrawalState.REFUSED, WithdrawalState.CANCELLED, WithdrawalState.LEGAL_HOLD)
"""Where somebody may have taken a withdrawal while the server was busy with it."""

MEASURED = "measured at the remaining sites"


class UnlearningRun:
    """The rounds of an unlearning, from the last model trained with everybody to the unlearned one.

    Parameters
    ----------
    coordinator
        Whose rounds, books and cache are used.
    register
        Of the withdrawals.
    accountability
        Notes what is erased before it is.
    entries
        What the ledger is told of contributions that are read or dropped.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        register: Withdrawals,
        accountability: Accountability,
        entries: ContributionEntries,
    ) -> None:
        self._of = coordinator
        self._register = register
        self._accountability = accountability
        self._entries = entries
        self._checkpoints = Checkpoints(coordinator.state, coordinator.safekeeping.keys)
        self._checkpoints.sweep()
        self.drop_stale()

    def unlearn(self, record: WithdrawalRecord) -> None:
        """Run the configured method from the last model trained with everybody, or go on with it.

        Raises
        ------
        WithdrawalError
            If the withdrawal was cancelled, refused or put on hold meanwhile.
        """
        with self._of.cache.watched(self._entries.reading(record, self._of.consortium.unlearning.method)):
            self._unlearn_watched(record)

    def _unlearn_watched(self, record: WithdrawalRecord) -> None:
        departed = frozenset(record.sites)
        books, config = self._of.books, self._of.consortium.unlearning
        latest = self.latest()
        if set(record.marks) <= set(latest.forgotten):
            return
        strategy = self._strategy(record)
        books.retention.protect(latest)
        checkpoint = self._checkpoints.load(departed)
        if checkpoint is None:
            strategy.check()
            if strategy.planned:
                strategy.begin(self._of.grid, books.arrays(latest))
            checkpoint = self._start(record, strategy, latest)
        # It may still be cancelled, and then the running sums go back to where they stood.
        self._of.cache.hold(checkpoint.first_round - 1)
        version = books.registry.get(checkpoint.check(strategy, config.settings).version)
        strategy.screen.recall(books.norms(MAIN, first_round=checkpoint.first_round))
        arrays = books.arrays(books.registry.get(checkpoint.start))
        if not strategy.planned:
            arrays = strategy.begin(self._of.grid, arrays)
        if checkpoint.done or strategy.planned:
            strategy.resume(self._checkpoints.state_of(checkpoint))
        if checkpoint.done:
            arrays = books.arrays(version)
        total = strategy.num_rounds
        title = f"Unlearning {record.whom} by {config.method}"
        announce(Event("stage", title, "unlearn", checkpoint.done, total))
        rounds = strategy.rounds(
            self._of.grid, arrays, total, first_round=checkpoint.first_round, done=checkpoint.done
        )
        for outcome in books.watched(rounds, MAIN):
            reached("unlearning-round-averaged")
            ended = self._of.simulated or checkpoint.done + 1 == total
            if record.site_stays and not self._of.simulated:
                self._check_left_out(record, outcome, last=checkpoint.done + 1 == total)
            evaluation = self._of.evaluate(strategy, outcome, checkpoint.done + 1, last=ended)
            with self._of.state.session() as session:
                version = books.commit(strategy, outcome, MAIN, version, evaluation, method=config.method)
                checkpoint = self._checkpoints.advance(
                    checkpoint, version.id, strategy.state(), session=session
                )
            reached("unlearning-round-committed")
            arrays = outcome.arrays
            self._of.announce_round("unlearn", outcome, checkpoint.done, total, evaluation)
            self._check_wanted(record)
            self._of.membership.refresh(outcome.round + 1)
        self._finish(record, strategy, version, arrays)

    def _strategy(self, record: WithdrawalRecord) -> UnlearningStrategy:
        departed, config = frozenset(record.sites), self._of.consortium.unlearning
        return self._of.method(
            departed,
            self._of.books.log.count(MAIN, "train"),
            config.method,
            config.settings,
            bystanders=self.bystanders(departed, self.latest()),
            staying=departed if record.site_stays else frozenset(),
        )

    def _check_left_out(self, record: WithdrawalRecord, outcome: RoundOutcome, *, last: bool) -> None:
        """Keep no round in which a site has not left its patients out, and not the last without its word for
        it: nobody else could tell.
        """  # noqa: D205 - one sentence
        (site,) = record.sites
        # Of every request under way: they are in its policy together.
        wanted = sum(
            other.patients or 0
            for other in self._register.open()
            if other.site_stays and other.sites == record.sites and other.restricted_at is not None
        )
        told = next((told for told in outcome.sites if told.site == site and told.outcome == "ok"), None)
        if told is None and last:
            raise RoundError(
                f"No usable reply came from {site} in the last round of its patients' unlearning, and only "
                "that site can say whether it leaves them out.",
                "`reconsent status` says what became of its replies; then run `reconsent resume`.",
            )
        left_out = wanted if told is None else int(told.metrics.get(msg.LEFT_OUT, 0))
        if left_out < wanted:
            raise RoundError(
                f"{wanted} patients of {site} have withdrawn, and it leaves out {left_out} of those it has "
                "data of.",
                "Have the site name them in `withdrawn-patients` of its policy, as `reconsent data check` "
                "spells them; then run `reconsent resume`.",
            )

    def _check_wanted(self, record: WithdrawalRecord) -> None:
        current = self._register.get(record.id)
        if current.state in ELSEWHERE:
            raise WithdrawalError(
                f"Withdrawal {record.id} is {current.state.value}; its unlearning ends here."
            )

    def check(self, record: WithdrawalRecord) -> None:
        """Refuse what the configured method cannot do, before anything is begun.

        Raises
        ------
        ContributionError
            As of :meth:`strategies.UnlearningStrategy.check`.
        """
        self._strategy(record).check()

    def abandon(self, record: WithdrawalRecord) -> None:
        """Drop what there is of an unfinished unlearning of these sites, whichever request it was of."""
        if self._checkpoints.sites() == set(record.sites):
            self._drop()

    def drop_stale(self) -> None:
        """Drop what is left of an unlearning nobody wants any more; it would be in the way of others'."""
        sites = self._checkpoints.sites()
        wanted = any(
            set(record.sites) == sites and WithdrawalState.UNLEARNING in (record.state, record.failed_in)
            for record in self._register.open()
        )
        if sites and not wanted:
            self._drop()

    def _drop(self) -> None:
        sites = self._checkpoints.sites()
        checkpoint, cache = self._checkpoints.load(frozenset(sites)), self._of.cache
        with self._of.state.session() as session:
            gone = []
            if checkpoint is not None and cache.can_rewind(checkpoint.first_round - 1):
                # The model goes back to where it was before, so its rounds may not stay in the running sums.
                gone = cache.rewind(checkpoint.first_round - 1, session=session)
                self._entries.dropped(sites, checkpoint.first_round - 1, len(gone), session)
            gone += cache.release(session=session)
            self._of.state.after_commit(session, lambda: discard(gone))
            self._checkpoints.end(session=session)

    def latest(self) -> ModelVersion:
        """The newest model of the main line."""
        return self._of.books.version(MAIN, "train", "unlearned", "initial")

    @staticmethod
    def bystanders(sites: frozenset[str], latest: ModelVersion) -> frozenset[str]:
        """Those of ``sites`` of which no update is in the model, or none since it was unlearned."""
        return frozenset(site for site in sites if not latest.depends_on(site))

    def _start(
        self, record: WithdrawalRecord, strategy: UnlearningStrategy, latest: ModelVersion
    ) -> Checkpoint:
        books, state, departed = self._of.books, self._of.state, frozenset(record.sites)
        with state.session() as session:
            start = latest
            if strategy.restarts:
                # The new path begins at the initial model, so its lineage has no edge from who left; what
                # the others contributed to the old one is no part of it.
                start = self._of.initialise()
                everybody = set(self._of.cache.sites())
                self._entries.erasing(record, everybody, session)
                self._accountability.note_erasure(record, [], session)
                files = self._of.cache.erase(everybody, session=session)
                state.after_commit(session, lambda: discard(files))
            elif (back := strategy.start_round) is not None:
                # Goes back to a former model: of what came after it nothing is in the new path.
                start = self._of.books.kept_models()[back]
                self._accountability.note_erasure(record, [], session, after=back)
                gone = self._of.cache.rewind(back, session=session)
                self._entries.dropped(departed, back, len(gone), session)
                state.after_commit(session, lambda: discard(gone))
            first = books.log.last_round(MAIN) + 1
            settings = self._of.consortium.unlearning.settings
            return self._checkpoints.begin(departed, strategy, settings, start.id, first, session=session)

    def _finish(
        self,
        record: WithdrawalRecord,
        strategy: UnlearningStrategy,
        version: ModelVersion,
        arrays: ArrayRecord,
    ) -> None:
        books = self._of.books
        try:
            finished = strategy.finish(arrays)
        except ContributionError:
            # The next attempt needs other settings, so it begins anew.
            with self._of.state.session() as session:
                self._checkpoints.end(session=session)
            raise
        with self._of.state.session() as session:
            unlearned = books.registry.add(
                msg.named_arrays(finished),
                line=MAIN,
                round=books.log.last_round(MAIN),
                kind="unlearned",
                parent=version.id,
                sites={},
                method=strategy.name,
                forgets=record.marks,
                session=session,
            )
            # In one transaction: what was cancelled a moment before does not become the model after all.
            self._register.advance(record.id, WithdrawalState.VERIFYING, note=MEASURED, session=session)
            gone = self._of.cache.release(session=session)
            self._of.state.after_commit(session, lambda: discard(gone))
            self._checkpoints.end(session=session)
        reached("unlearning-finished")
        books.retention.protect(unlearned)
