"""The life of a consortium: training, withdrawals, unlearning, and the oracle, one committed round at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from reconsent.config import ConsortiumConfig
from reconsent.errors import RoundError
from server.bookkeeping import MAIN, ORACLE, Bookkeeping
from server.events import Event, announce
from server.handshake import identify_sites
from server.persistence import ModelVersion, StateDirectory, WithdrawalRecord, Withdrawals
from strategies import (
    ContributionAveraging,
    Departure,
    RoundOutcome,
    UnlearningStrategy,
    UpdateScreen,
    build_method,
)
from strategies import messages as msg
from strategies.exchange import exchange
from strategies.schedules import scheduled
from unlearning.contributions import CachePolicy, ContributionCache, discard
from unlearning.withdrawal import WithdrawalState

Evaluation = dict[str, dict[str, float]]


class Coordinator:
    """Runs a consortium on a Flower grid and a state directory.

    A new coordinator on the same state goes on after the last committed round; an unlearning that was
    interrupted begins again from the model it began with.

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
    """

    def __init__(
        self, grid: Grid, consortium: ConsortiumConfig, state: StateDirectory, *, simulated: bool
    ) -> None:
        self.grid = grid
        self.consortium = consortium
        self.state = state
        self.simulated = simulated
        self.books = Bookkeeping(state)
        self.withdrawals = Withdrawals(state)
        self.cache = ContributionCache(
            state.contributions_dir, state.session, cache_policy(consortium), line=MAIN
        )
        self.cache.sweep()
        screening = consortium.screening
        self.screen = UpdateScreen(screening.max_norm_ratio, screening.max_norm)
        self.screen.recall({site: self.cache.norms(site) for site in self.cache.sites()})
        self.nodes: dict[int, str] = {}

    # ---- the whole plan -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Do what the consortium file says: train, withdraw and unlearn, go on, retrain the oracle."""
        config = self.consortium
        rounds = config.training.rounds
        plan: dict[int, list[str]] = {}
        for withdrawal in config.withdrawals:
            plan.setdefault(withdrawal.at_round or rounds, []).extend(withdrawal.sites)
        self.meet()
        self.initialise(leaving={site for sites in plan.values() for site in sites})
        for at_round in sorted(plan):
            self.train(at_round)
            self.withdraw(plan[at_round])
        self.train(rounds + config.continue_rounds)
        if plan and config.assessment.oracle:
            self.retrain_oracle({site for sites in plan.values() for site in sites}, max(plan))
        announce(Event("done", "The run has ended."))

    # ---- parts of it --------------------------------------------------------------------------------------

    def meet(self) -> None:
        """Find out which node is which site."""
        roster = self.books.roster
        roster.start_run()
        barred = {entry.site for entry in roster.all() if entry.status != "active"}
        training = self.consortium.training
        self.nodes = identify_sites(
            self.grid,
            roster,
            {site.name for site in self.consortium.sites} - barred,
            round_=self.books.log.last_round(MAIN),
            patience=0.0 if self.simulated else training.join_seconds,
            at_least=training.min_sites,
        )

    def initialise(self, leaving: Iterable[str] = ()) -> ModelVersion:
        """The untrained model, built by a site since the server knows no imaging.

        By a site that stays, where that is known: nothing of the oracle may come from one that leaves.
        """
        existing = self.books.registry.initial(MAIN)
        if existing is not None:
            return existing
        active = self.active_nodes()
        candidates = [n for n, site in active.items() if site not in set(leaving)] or list(active)
        if not candidates:
            raise RoundError("No site is online to build the reconstructor.", "Start the SuperNodes.")
        node_id = min(candidates, key=lambda n: active[n])
        timeout = self.consortium.training.timeout_seconds
        message = Message(
            msg.content(config={}),
            dst_node_id=node_id,
            message_type=msg.INITIALISE,
            ttl=timeout,
            group_id="initialise",
        )
        reply = next(iter(exchange(self.grid, [message], active, timeout=timeout)))
        record = msg.arrays_of(reply.message) if reply.message is not None else None
        if record is None:
            raise RoundError(
                f"Site '{reply.site}' could not build the reconstructor: {reply.status} {reply.reason}.",
                "Check the [model] table and that site's log.",
            )
        return self.books.registry.add(
            msg.named_arrays(record), line=MAIN, round=0, kind="initial", parent=None, sites={}
        )

    def train(self, until: int) -> None:
        """Train with the active sites up to training round ``until``."""
        done = self.books.log.count(MAIN, "train")
        if done >= until:
            return
        last = self.books.log.last_round(MAIN)
        offset = last - done
        strategy = ContributionAveraging(
            round_config=lambda t: self._told(t - offset), cache=self.cache, **self._common()
        )
        stage = "train" if until <= self.consortium.training.rounds else "continue"
        self._announce_stage(f"Training with {len(self.active_nodes())} sites", stage, done, until)
        version = self.books.version(MAIN, "train", "unlearned", "initial")
        rounds = strategy.rounds(self.grid, self.books.arrays(version), until - done, first_round=last + 1)
        for outcome in rounds:
            done += 1
            evaluation = self._evaluate(strategy, outcome, done, last=done == until)
            version = self.books.commit(strategy, outcome, MAIN, version, evaluation)
            self._announce_round(stage, outcome, done, until, evaluation)

    def withdraw(self, sites: list[str]) -> WithdrawalRecord:
        """Take ``sites`` out: bar them, unlearn them, revoke the models they shaped, erase what was kept."""
        method = self.consortium.unlearning.method
        record = self._filed(sites, method)
        names = ", ".join(record.sites)
        record = self._advance(record, WithdrawalState.RESTRICTED, "barred everywhere; contributions frozen")
        record = self._advance(record, WithdrawalState.UNLEARNING, f"by {method}")
        if record.state is WithdrawalState.UNLEARNING:
            self.unlearn(frozenset(sites))
        record = self._advance(record, WithdrawalState.VERIFYING, "measured at the remaining sites")
        record = self._advance(record, WithdrawalState.PROPAGATING, "revoking models, erasing contributions")
        if record.state is WithdrawalState.PROPAGATING:
            reason = f"holds what {names} contributed (withdrawal {record.id})"
            with self.state.session() as session:
                for site in sorted(sites):
                    self.books.registry.revoke_descendants_of_site(site, reason, session=session)
                files = self.cache.erase(set(sites), session=session)
                self.state.after_commit(session, lambda: discard(files))
        return self._advance(record, WithdrawalState.COMPLETED, "unlearned; contributions erased")

    def unlearn(self, departed: frozenset[str]) -> None:
        """Run the configured method from the last model trained with everybody."""
        version = self.books.version(MAIN, "train", "unlearned", "initial")
        if departed <= set(version.forgotten):
            return
        config = self.consortium.unlearning
        strategy = self.method(departed, self.books.log.count(MAIN, "train"), config.method, config.settings)
        if strategy.restarts:
            # The new path begins at the initial model, so its lineage has no edge from the departed sites.
            self._forget_all_contributions()
            version = self.initialise()
        total = strategy.num_rounds
        title = f"Unlearning {', '.join(sorted(departed))} by {config.method}"
        self._announce_stage(title, "unlearn", 0, total)
        arrays = strategy.begin(self.grid, self.books.arrays(version))
        first = self.books.log.last_round(MAIN) + 1
        rounds = strategy.rounds(self.grid, arrays, total, first_round=first)
        for index, outcome in enumerate(rounds, start=1):
            evaluation = self._evaluate(strategy, outcome, index, last=True)
            version = self.books.commit(strategy, outcome, MAIN, version, evaluation, method=config.method)
            arrays = outcome.arrays
            self._announce_round("unlearn", outcome, index, total, evaluation)
        self.books.registry.add(
            msg.named_arrays(strategy.finish(arrays)),
            line=MAIN,
            round=self.books.log.last_round(MAIN),
            kind="unlearned",
            parent=version.id,
            sites={},
            method=config.method,
            forgets=sorted(departed),
        )

    def retrain_oracle(self, departed: set[str], trained: int) -> None:
        """Train the oracle: the same rounds from the same start without ``departed``."""
        done = self.books.log.count(ORACLE, "retain")
        if done >= trained:
            return
        strategy = self.method(frozenset(departed), trained, "retrain", {}, cached=False)
        title = f"Retraining without {', '.join(sorted(departed))}: the oracle"
        self._announce_stage(title, "oracle", done, trained)
        version = self.books.registry.latest(ORACLE) or self.initialise()
        arrays = self.books.arrays(version)
        for outcome in strategy.rounds(self.grid, arrays, trained - done, first_round=done + 1):
            done += 1
            evaluation = self._evaluate(strategy, outcome, done, last=done == trained)
            version = self.books.commit(strategy, outcome, ORACLE, version, evaluation, method="retrain")
            self._announce_round("oracle", outcome, done, trained, evaluation)

    def method(
        self,
        departed: frozenset[str],
        trained: int,
        name: str,
        settings: Mapping[str, object],
        *,
        cached: bool = True,
    ) -> UnlearningStrategy:
        """Build a method of unlearning for this consortium."""
        departure = Departure(
            sites=departed,
            trained_rounds=trained,
            budget_rounds=max(1, int(self.consortium.unlearning.rounds_fraction * trained)),
            learning_rate=self._learning_rate(trained),
            initial=lambda: self.books.arrays(self.initialise()),
        )
        cache = self.cache if cached else None
        return build_method(name, settings, departure, round_config=self._told, cache=cache, **self._common())

    # ---- inside -------------------------------------------------------------------------------------------

    def active_nodes(self) -> dict[int, str]:
        """Node id → site of the sites that are online and not withdrawn."""
        online = set(self.grid.get_node_ids())
        active = {entry.site for entry in self.books.roster.active()}
        return {n: site for n, site in self.nodes.items() if n in online and site in active}

    def _common(self) -> dict[str, Any]:
        training = self.consortium.training
        return {
            "members": lambda _grid: self.active_nodes(),
            "screen": self.screen,
            "min_sites": training.min_sites,
            "timeout": training.timeout_seconds,
            "spool": self.state.path / "spool",
        }

    def _told(self, training_round: int) -> dict[str, int | float | str | bool]:
        return {msg.LEARNING_RATE: self._learning_rate(training_round)}

    def _learning_rate(self, training_round: int) -> float:
        t = self.consortium.training
        return scheduled(t.schedule, t.learning_rate, t.final_learning_rate, training_round - 1, t.rounds)

    def _evaluate(
        self, strategy: ContributionAveraging, outcome: RoundOutcome, index: int, *, last: bool
    ) -> Evaluation:
        every = self.consortium.training.evaluate_every
        if not every or (index % every and not last):
            return {}
        return strategy.evaluate(self.grid, outcome.round, outcome.arrays, {msg.SPLIT: msg.SPLIT_TEST})

    def _forget_all_contributions(self) -> None:
        with self.state.session() as session:
            files = self.cache.erase(set(self.cache.sites()), session=session)
            self.state.after_commit(session, lambda: discard(files))

    def _filed(self, sites: list[str], method: str) -> WithdrawalRecord:
        for record in self.withdrawals.all():
            if set(record.sites) == set(sites) and record.state is not WithdrawalState.CANCELLED:
                return record
        return self.withdrawals.file(
            sites,
            reason="exercised in a simulation" if self.simulated else "named in the consortium file",
            requested_by="simulation" if self.simulated else "operator",
            method=method,
            at_round=self.books.log.last_round(MAIN),
            simulated=self.simulated,
        )

    def _advance(self, record: WithdrawalRecord, state: WithdrawalState, note: str) -> WithdrawalRecord:
        """Move a withdrawal on to ``state``, unless a run before this one already did."""
        order = list(WithdrawalState)
        if order.index(record.state) >= order.index(state):
            return record
        advanced = self.withdrawals.advance(record.id, state, note=note)
        announce(Event("withdrawal", f"Withdrawal of {', '.join(record.sites)}: {state.value} ({note})"))
        return advanced

    @staticmethod
    def _announce_stage(title: str, stage: str, done: int, total: int) -> None:
        announce(Event("stage", title, stage, done, total))

    @staticmethod
    def _announce_round(
        stage: str, outcome: RoundOutcome, index: int, total: int, evaluation: Evaluation
    ) -> None:
        metrics = {k: float(v) for k, v in outcome.metrics().items() if isinstance(v, int | float)}
        metrics |= {f"psnr/{s}": v[msg.PSNR] for s, v in evaluation.items() if msg.PSNR in v}
        metrics |= dict(outcome.notes)
        failed = [f"{s.site}: {s.outcome} ({s.reason})" for s in outcome.sites if s.outcome != "ok"]
        text = "; ".join(failed) or ("" if outcome.accepted else "step taken back and halved")
        announce(Event("round", text, stage, index, total, metrics))


def cache_policy(consortium: ConsortiumConfig) -> CachePolicy:
    """What the consortium's server keeps of updates."""
    kept = consortium.contributions
    rounds = consortium.training.rounds
    return CachePolicy(
        damping=kept.damping,
        history_every=kept.history_every,
        history_dtype=kept.history_dtype,
        anchor_rounds=frozenset(max(1, round(share * rounds)) for share in kept.anchors),
    )
