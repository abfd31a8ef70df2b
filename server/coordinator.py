"""The life of a consortium: training, withdrawals, unlearning, the oracle; one committed round at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from reconsent.config import ConsortiumConfig
from reconsent.errors import BarredError, RoundError
from reconsent.faults import reached
from server.bookkeeping import MAIN, ORACLE, Bookkeeping
from server.events import Event, announce
from server.initial_model import initial_model
from server.membership import Membership
from server.persistence import Ledger, ModelVersion, StateDirectory, WithdrawalRecord
from server.plan import events_of, returns_of
from server.safekeeping import Safekeeping, cache_policy
from server.withdrawing import Withdrawing
from server.witnesses import Witnesses
from strategies import (
    ContributionAveraging,
    Departure,
    RoundOutcome,
    UnlearningStrategy,
    UpdateScreen,
    build_method,
)
from strategies import messages as msg
from strategies.methods import check_plan
from strategies.schedules import scheduled
from strategies.site_privacy import noised_at_site, server_noise
from unlearning.contributions import ContributionCache
from unlearning.withdrawal import WithdrawalState

Evaluation = dict[str, dict[str, float]]


BACK_IN = (WithdrawalState.REFUSED, WithdrawalState.CANCELLED)
"""Where a withdrawal ends that is not carried out; on legal hold who leaves takes part no more."""


class Coordinator:
    """Runs a consortium on a Flower grid and a state directory.

    A new coordinator on the same state goes on after the last committed round, of whatever stage, and ends
    with the same models as if nothing had happened.

    Parameters
    ----------
    grid
        Flower's way to the nodes.
    consortium
        What is to be done.
    state
        Open, writable state directory.
    simulated
        Marks withdrawals as simulated: no evidence.
    fab_sha256
        Hash of the bundle that Flower ships to the sites, for the record; empty: it is not known.

    Attributes
    ----------
    patients_left
        Sites of a simulation that leave patients out from now on; by default those of the withdrawals filed.
    """

    def __init__(
        self,
        grid: Grid,
        consortium: ConsortiumConfig,
        state: StateDirectory,
        *,
        simulated: bool,
        fab_sha256: str = "",
    ) -> None:
        self.grid = grid
        self.consortium = consortium
        self.state = state
        self.simulated = simulated
        self.fab_sha256 = fab_sha256
        self.patients_left: Callable[[], Collection[str]] = self._patients_left
        policy = cache_policy(consortium)
        self.safekeeping = Safekeeping(state, consortium)
        self.books = Bookkeeping(state, policy.anchor_rounds, self.safekeeping)
        self.books.registry.sweep()
        self.cache = ContributionCache(
            state.contributions_dir, state.session, policy, line=MAIN, keys=self.safekeeping.keys
        )
        self.cache.sweep()
        self.safekeeping.begin(self.cache)
        # Contributions would be kept without the noise, and a model made of them would not be covered by it.
        self._site_noise = server_noise(consortium, simulated=simulated)
        self.withdrawing = Withdrawing(self)
        self.withdrawals = self.withdrawing.register
        self.witnesses = Witnesses(Ledger(state), simulated=simulated)
        self.membership = Membership(grid, consortium, state, self.books.roster, simulated=simulated)
        self.membership.heard = self.witnesses.introduced

    # ---- the whole plan -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Do what the consortium file says: train, withdraw and unlearn, go on, retrain the oracle."""
        config = self.consortium
        rounds = config.training.rounds
        check_plan(config)
        self.meet()
        self.initialise(leaving={site for withdrawal in config.withdrawals for site in withdrawal.sites})
        gone: set[str] = set()
        done = False
        trained = 0
        for event in events_of(config):
            self.train(event.after_round)
            if event.kind == "return":
                self._take_back(event.sites)
                continue
            record = self.withdraw(event.sites, event.patients)
            if record.state is WithdrawalState.COMPLETED:
                gone.update(() if record.site_stays else record.sites)
                done, trained = True, event.after_round
        self.train(rounds + config.continue_rounds)
        if done and config.assessment.oracle:
            self.retrain_oracle(gone, trained)
        announce(Event("done", "The run has ended."))

    def _take_back(self, sites: Iterable[str]) -> None:
        """Let withdrawn sites take part again, as newcomers; nothing if they are back already."""
        withdrawn = self.membership.barred()
        for site in sites:
            if site in withdrawn:
                self.books.roster.return_of(site)
                announce(Event("notice", f"{site} takes part again, as a newcomer."))
        self.meet()

    # ---- parts of it --------------------------------------------------------------------------------------

    def meet(self) -> None:
        """Find out which node is which site."""
        self.membership.meet(self.books.log.last_round(MAIN))

    def initialise(self, leaving: Iterable[str] = ()) -> ModelVersion:
        """The untrained model, built by a site since the server knows no imaging.

        By a site that stays, where that is known: nothing of the oracle may come from one that leaves.
        """
        existing = self.books.registry.initial(MAIN)
        if existing is not None:
            return existing
        timeout = self.consortium.training.timeout_seconds
        built, moved = initial_model(self.grid, self.active_nodes(), frozenset(leaving), timeout=timeout)
        self.books.moved("initialise", moved)
        return self.books.registry.add(built, line=MAIN, round=0, kind="initial", parent=None, sites={})

    def train(self, until: int, *, pausing: bool = False) -> bool:
        """Train with the active sites up to training round ``until``.

        Parameters
        ----------
        until
            Number of training rounds there shall be.
        pausing
            Stop after the round in which a withdrawal was filed.

        Returns
        -------
        Whether all rounds are done.
        """
        while (done := self.books.log.count(MAIN, "train")) < until:
            if pausing and self.withdrawing.due():
                return False
            self.membership.wait(self.books.log.last_round(MAIN) + 1)
            try:
                with self.safekeeping.counting():
                    self._train(done, until, pausing=pausing)
            except BarredError as error:
                # A site was barred after its update was averaged: the round is not kept, and done again.
                announce(Event("notice", f"A round is repeated: {error.problem}"))
            except RoundError as error:
                if self.simulated or self.membership.enough():
                    raise
                # Sites left in the middle of it: whoever comes back is waited for.
                announce(Event("notice", str(error)))
        return True

    def _train(self, done: int, until: int, *, pausing: bool) -> None:
        last = self.books.log.last_round(MAIN)
        offset = last - done
        strategy = ContributionAveraging(
            round_config=lambda t: self._told(t - offset),
            cache=self.cache if self._site_noise is None else None,
            screen=self._screen(self.books.norms(MAIN)),
            **self._common(),
        )
        # `done` grows with each round: a site may join late or leave early.
        strategy.members = lambda _grid: self._present(done + 1)
        stage = "train" if until <= self.consortium.training.rounds else "continue"
        self._announce_stage(f"Training with {len(self.active_nodes())} sites", stage, done, until)
        version = self.books.version(MAIN, "train", "unlearned", "initial")
        rounds = strategy.rounds(self.grid, self.books.arrays(version), until - done, first_round=last + 1)
        for outcome in self.books.watched(rounds, MAIN):
            reached("round-averaged")
            done += 1
            evaluation = self.evaluate(strategy, outcome, done, last=done == until)
            reached("round-before-commit")
            version = self.books.commit(strategy, outcome, MAIN, version, evaluation)
            reached("round-committed")
            self.announce_round(stage, outcome, done, until, evaluation)
            if pausing and self.withdrawing.due():
                return
            if done < until:
                self.membership.refresh(outcome.round + 1)
                if not self.membership.enough():
                    return

    def withdraw(self, sites: Sequence[str], patients: int = 0) -> WithdrawalRecord:
        """Take sites out, or patients of one; see :meth:`server.withdrawing.Withdrawing.carry_out`."""
        return self.withdrawing.carry_out(sites, patients)

    def retrain_oracle(self, departed: set[str], trained: int) -> None:
        """Train the oracle: the same rounds from the same start without those who left."""
        done = self.books.log.count(ORACLE, "retain")
        if done >= trained:
            return
        strategy = self.method(frozenset(departed), trained, "retrain", {}, cached=False)
        strategy.screen.recall(self.books.norms(ORACLE))
        own = strategy.round_config
        # What the yardstick of a simulation spends is not the consortium's.
        strategy.round_config = lambda t: {**own(t), msg.ACCOUNT: ORACLE}
        # Who came back before the last withdrawal is part of the oracle from then on, as a newcomer.
        back = {n: t for n, t in returns_of(self.consortium).items() if n in departed and t < trained}
        strategy.barred -= frozenset(back)
        strategy.members = lambda _grid: {
            n: site for n, site in self._present(done + 1).items() if back.get(site, 0) <= done
        }
        without = [*sorted(departed), *(f"patients of {site}" for site in sorted(self.patients_left()))]
        title = f"Retraining without {', '.join(without)}: the oracle"
        self._announce_stage(title, "oracle", done, trained)
        version = self.books.registry.latest(ORACLE) or self.initialise()
        arrays = self.books.arrays(version)
        for outcome in self.books.watched(strategy.rounds(self.grid, arrays, trained, done=done), ORACLE):
            done += 1
            evaluation = self.evaluate(strategy, outcome, done, last=done == trained)
            version = self.books.commit(strategy, outcome, ORACLE, version, evaluation, method="retrain")
            self.announce_round("oracle", outcome, done, trained, evaluation)

    def method(
        self,
        departed: frozenset[str],
        trained: int,
        name: str,
        settings: Mapping[str, object],
        *,
        cached: bool = True,
        bystanders: frozenset[str] = frozenset(),
        cooperating: frozenset[str] | None = None,
        staying: frozenset[str] = frozenset(),
    ) -> UnlearningStrategy:
        """Build a method of unlearning for this consortium.

        ``cooperating`` are the leavers that still answer; ``None``: those of the withdrawals under way.
        ``staying`` are sites that only some patients leave.
        """
        departure = Departure(
            sites=departed,
            trained_rounds=trained,
            budget_rounds=max(1, int(self.consortium.unlearning.rounds_fraction * trained)),
            learning_rate=self._learning_rate(trained),
            initial=lambda: self.books.arrays(self.initialise()),
            bystanders=bystanders,
            cooperating=departed & (self.membership.cooperating() if cooperating is None else cooperating),
            staying=staying,
            models=self._kept_models() if cached else {},
            touched=self._touched(departed) if cached else frozenset(),
        )
        how = self._common()
        if departure.cooperating:
            how["members"] = lambda _grid: {**self.active_nodes(), **self.membership.leaving()}
        return build_method(
            name,
            settings,
            departure,
            round_config=self._told,
            cache=self.cache if cached and self._site_noise is None else None,
            # A screen of its own: its updates may be far larger than those at the end of the training.
            screen=self._screen({}),
            **how,
        )

    # ---- inside -------------------------------------------------------------------------------------------

    def active_nodes(self) -> dict[int, str]:
        """Node id → site of the sites that are online and not withdrawn; see :class:`Membership`."""
        return self.membership.active()

    def _present(self, training_round: int) -> dict[int, str]:
        """Of the active nodes, those whose site takes part in a training round; all of them when deployed."""
        nodes = self.active_nodes()
        if not self.simulated:
            return nodes
        sites = {site.name: site for site in self.consortium.sites}
        last = {name: site.last_round or training_round for name, site in sites.items()}
        return {n: s for n, s in nodes.items() if sites[s].first_round <= training_round <= last[s]}

    def _patients_left(self) -> Collection[str]:
        """Sites that patients have left while they stay; asked for in a simulation only."""
        return frozenset(
            site
            for record in self.withdrawals.all()
            if record.site_stays and record.restricted_at is not None and record.state not in BACK_IN
            for site in record.sites
        )

    def _kept_models(self) -> dict[int, Callable[[], ArrayRecord]]:
        """Round → the model after it, of those that a method can go back to, and the newest."""
        kept = self.books.kept_models()
        newest = max(kept)
        return {
            round_: partial(self.books.arrays, version)
            for round_, version in kept.items()
            if round_ == newest or self.cache.can_rewind(round_)
        }

    def _touched(self, departed: frozenset[str]) -> frozenset[int]:
        """Rounds of the kept models that something of a leaving site is in."""
        kept = self.books.kept_models()
        return frozenset(t for t, version in kept.items() if any(version.depends_on(s) for s in departed))

    def _common(self) -> dict[str, Any]:
        training = self.consortium.training
        return {
            "members": lambda _grid: self.active_nodes(),
            "barred_now": self.membership.refused_now,
            # A real site knows by itself, by its own policy.
            "patients_left": self.patients_left if self.simulated else frozenset,
            # The simulation engine keeps every message it was sent: only as many as will soon be worked on.
            "window": 2 * (os.cpu_count() or 1) if self.simulated else None,
            "min_sites": training.min_sites,
            "timeout": training.timeout_seconds,
            "spool": self.state.path / "spool",
            "site_config": None if self.simulated else self.witnesses.told,
            "site_noise": self._site_noise,
        }

    def _screen(self, norms: dict[str, list[float]]) -> UpdateScreen:
        screening = self.consortium.screening
        enrolled = self.membership.enrolled_examples
        screen = UpdateScreen(
            screening.max_norm_ratio,
            screening.max_norm,
            enrolled,
            screening.first_norm_ratio,
            noised_at_site(self.consortium).get,
        )
        screen.recall(norms)
        return screen

    def _told(self, training_round: int) -> dict[str, int | float | str | bool]:
        told: dict[str, int | float | str | bool] = {msg.LEARNING_RATE: self._learning_rate(training_round)}
        every = self.consortium.training.evaluate_every
        if not self.simulated and every and training_round > 1 and (training_round - 1) % every == 0:
            told[msg.EVALUATE_INCOMING] = True
        return told

    def _learning_rate(self, training_round: int) -> float:
        t = self.consortium.training
        return scheduled(t.schedule, t.learning_rate, t.final_learning_rate, training_round - 1, t.rounds)

    def evaluate(
        self, strategy: ContributionAveraging, outcome: RoundOutcome, index: int, *, last: bool
    ) -> Evaluation:
        """Have the active sites measure a round's model, if it is one to be measured."""
        every = self.consortium.training.evaluate_every
        if not every or (index % every and not last):
            return {}
        if not self.simulated and not last:
            # Over gRPC a phase takes seconds whatever it does, so the next training message asks for it.
            return {}
        return strategy.evaluate(self.grid, outcome.round, outcome.arrays, {msg.SPLIT: msg.SPLIT_TEST})

    @staticmethod
    def _announce_stage(title: str, stage: str, done: int, total: int) -> None:
        announce(Event("stage", title, stage, done, total))

    def announce_round(
        self, stage: str, outcome: RoundOutcome, index: int, total: int, evaluation: Evaluation
    ) -> None:
        """Tell whoever watches about a committed round."""
        self.witnesses.answered(outcome.sites)
        metrics = {k: float(v) for k, v in outcome.metrics().items() if isinstance(v, int | float)}
        measured = {**outcome.incoming(), **evaluation}
        metrics |= {f"psnr/{s}": v[msg.PSNR] for s, v in measured.items() if msg.PSNR in v}
        metrics |= dict(outcome.notes)
        failed = [
            f"{s.site}: {s.outcome} ({s.reason})" for s in outcome.sites if s.outcome != "ok" or s.reason
        ]
        text = "; ".join(failed) or ("" if outcome.accepted else "step taken back and halved")
        announce(Event("round", text, stage, index, total, metrics))
