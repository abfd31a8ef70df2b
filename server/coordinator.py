"""The life of a consortium: training, withdrawals, unlearning, and the oracle, one committed round at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flwr.app import Message
from flwr.serverapp import Grid

from reconsent.config import ConsortiumConfig
from reconsent.errors import RoundError
from server.events import Event, announce
from server.handshake import identify_sites
from server.persistence.registry import ModelRegistry, ModelVersion
from server.persistence.roster import Roster
from server.persistence.rounds import RoundLog
from server.persistence.state import StateDirectory
from server.persistence.withdrawals import WithdrawalRecord, Withdrawals
from strategies import Departure, UnlearningStrategy, UpdateScreen, build_method
from strategies import messages as msg
from strategies.averaging import ContributionAveraging, RoundOutcome
from strategies.exchange import exchange
from strategies.schedules import scheduled
from unlearning.contributions import CachePolicy, ContributionCache, discard
from unlearning.withdrawal import WithdrawalState

MAIN = "main"
ORACLE = "oracle"


class Coordinator:
    """Runs a consortium on a Flower grid and a state directory.

    Every round is one transaction: model version, contributions, roster and log entry are all there or
    none is. A new coordinator on the same state goes on after the last committed round.

    Parameters
    ----------
    grid
        Flower's way to the nodes.
    consortium
        What is to be done.
    state
        Open, writable state directory.
    simulated
        Marks withdrawals and models as simulated: no evidence.
    """

    def __init__(
        self, grid: Grid, consortium: ConsortiumConfig, state: StateDirectory, *, simulated: bool
    ) -> None:
        self.grid = grid
        self.consortium = consortium
        self.state = state
        self.simulated = simulated
        self.roster = Roster(state)
        self.registry = ModelRegistry(state)
        self.log = RoundLog(state)
        self.withdrawals = Withdrawals(state)
        rounds = consortium.training.rounds
        self.cache = ContributionCache(
            state.contributions_dir,
            state.session,
            CachePolicy(
                damping=consortium.contributions.damping,
                history_every=consortium.contributions.history_every,
                history_dtype=consortium.contributions.history_dtype,
                anchor_rounds=frozenset(
                    max(1, round(share * rounds)) for share in consortium.contributions.anchors
                ),
            ),
            line=MAIN,
        )
        self.cache.sweep()
        self.screen = UpdateScreen(consortium.screening.max_norm_ratio, consortium.screening.max_norm)
        self.screen.recall({site: self.cache.norms(site) for site in self.cache.sites()})
        self.nodes: dict[int, str] = {}

    # ---- the whole plan -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Do what the consortium file says: train, withdraw and unlearn, go on, retrain the oracle."""
        config = self.consortium
        self.meet()
        self.initialise()
        rounds = config.training.rounds
        plan: dict[int, list[str]] = {}
        for withdrawal in config.withdrawals:
            plan.setdefault(withdrawal.at_round or rounds, []).extend(withdrawal.sites)
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
        self.roster.start_run()
        barred = {entry.site for entry in self.roster.all() if entry.status != "active"}
        expected = {site.name for site in self.consortium.sites} - barred
        training = self.consortium.training
        self.nodes = identify_sites(
            self.grid,
            self.roster,
            expected,
            round_=self.line_round(MAIN),
            timeout=training.timeout_seconds,
            at_least=training.min_sites,
        )

    def initialise(self) -> ModelVersion:
        """The untrained model, built by a site since the server knows no imaging."""
        existing = self.registry.initial(MAIN)
        if existing is not None:
            return existing
        # The first site by name that stays: nothing of the oracle may depend on a site that leaves.
        leaving = {site for withdrawal in self.consortium.withdrawals for site in withdrawal.sites}
        node_id = min(
            (n for n, site in self.active_nodes().items() if site not in leaving),
            key=lambda n: self.nodes[n],
        )
        message = Message(
            msg.content(config={}), dst_node_id=node_id, message_type=msg.INITIALISE, ttl=600.0, group_id="0"
        )
        reply = next(iter(exchange(self.grid, [message], self.active_nodes(), timeout=600.0)))
        record = msg.arrays_of(reply.message) if reply.message is not None else None
        if record is None:
            raise RoundError(
                f"Site '{reply.site}' could not build the reconstructor: {reply.status} {reply.reason}.",
                "Check the [model] table and that site's log.",
            )
        return self.registry.add(
            msg.named_arrays(record), line=MAIN, round=0, kind="initial", parent=None, sites={}, method=None
        )

    def train(self, until: int) -> None:
        """Train with the active sites up to training round ``until``."""
        done = self.log.count(MAIN, "train")
        if done >= until:
            return
        training = self.consortium.training
        offset = self.line_round(MAIN) - done
        strategy = ContributionAveraging(
            round_config=lambda t: self._told(t - offset, "train"), cache=self.cache, **self._common()
        )
        stage = "train" if until <= training.rounds else "continue"
        announce(Event("stage", f"Training with {len(self.active_nodes())} sites", stage, done, until))
        version = self._latest(MAIN)
        arrays = msg.array_record(self.registry.load(version.id))
        first = self.line_round(MAIN) + 1
        for outcome in strategy.rounds(self.grid, arrays, until - done, first_round=first):
            done += 1
            evaluation = self._evaluate(strategy, outcome, done, last=done == until)
            version = self._commit(strategy, outcome, MAIN, version, evaluation, method=None)
            self._announce_round(stage, outcome, done, until, evaluation)

    def withdraw(self, sites: list[str]) -> WithdrawalRecord:
        """Take ``sites`` out: bar them, unlearn them, revoke the models they shaped, erase what was kept."""
        config = self.consortium.unlearning
        record = self._filed(sites, config.method)
        if record.state == WithdrawalState.COMPLETED:
            return record
        departed = frozenset(sites)
        record = self._advance(record, WithdrawalState.RESTRICTED, "barred everywhere; contributions frozen")
        record = self._advance(record, WithdrawalState.UNLEARNING, f"by {config.method}")
        self.unlearn(departed)
        record = self._advance(record, WithdrawalState.VERIFYING, "measured by the remaining sites")
        record = self._advance(record, WithdrawalState.PROPAGATING, "revoking and erasing")
        self._propagate(departed, record)
        return self._advance(record, WithdrawalState.COMPLETED, "unlearned; contributions erased")

    def unlearn(self, departed: frozenset[str]) -> None:
        """Run the configured method from the last model trained with everybody."""
        config = self.consortium.unlearning
        if self._latest(MAIN).kind == "unlearned":
            return
        trained = self.log.count(MAIN, "train")
        version = self._last_trained()
        strategy = self.method(departed, trained, config.method, config.settings)
        if strategy.claim_level == "exact_retrain":
            with self.state.session() as session:
                stale = self.cache.erase(set(self.cache.sites()), session=session)
            discard(stale)
        total = strategy.num_rounds
        announce(
            Event(
                "stage", f"Unlearning {', '.join(sorted(departed))} by {config.method}", "unlearn", 0, total
            )
        )
        arrays = strategy.begin(self.grid, msg.array_record(self.registry.load(version.id, force=True)))
        first = self.line_round(MAIN) + 1
        for index, outcome in enumerate(
            strategy.rounds(self.grid, arrays, total, first_round=first), start=1
        ):
            evaluation = self._evaluate(strategy, outcome, index, last=True)
            version = self._commit(strategy, outcome, MAIN, version, evaluation, method=config.method)
            arrays = outcome.arrays
            self._announce_round("unlearn", outcome, index, total, evaluation)
        arrays, notes = strategy.finish(arrays)
        self.registry.add(
            msg.named_arrays(arrays),
            line=MAIN,
            round=self.line_round(MAIN),
            kind="unlearned",
            parent=version.id,
            sites={},
            method=config.method,
            unlearned=departed,
        )
        del notes

    def retrain_oracle(self, departed: set[str], trained: int) -> None:
        """Train the oracle: the same rounds from the same start without ``departed``."""
        strategy = self.method(frozenset(departed), trained, "retrain", {}, cached=False)
        done = self.log.count(ORACLE, "retain")
        if done >= trained:
            return
        announce(
            Event(
                "stage",
                f"Retraining without {', '.join(sorted(departed))}: the oracle",
                "oracle",
                done,
                trained,
            )
        )
        start = self.registry.initial(MAIN)
        assert start is not None  # noqa: S101 - the consortium has been initialised
        version = self.registry.latest(ORACLE) or start
        arrays = msg.array_record(self.registry.load(version.id))
        for outcome in strategy.rounds(self.grid, arrays, trained - done, first_round=done + 1):
            done += 1
            evaluation = self._evaluate(strategy, outcome, done, last=done == trained)
            version = self._commit(strategy, outcome, ORACLE, version, evaluation, method="retrain")
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
        budget = max(1, int(self.consortium.unlearning.rounds_fraction * trained))
        departure = Departure(
            sites=departed,
            trained_rounds=trained,
            budget_rounds=budget,
            learning_rate=self._learning_rate(trained),
            initial=lambda: msg.array_record(self.registry.load(self._initial().id, force=True)),
        )
        return build_method(
            name,
            settings,
            departure,
            round_config=lambda t: self._told(t, "train"),
            cache=self.cache if cached else None,
            **self._common(),
        )

    # ---- inside -------------------------------------------------------------------------------------------

    def active_nodes(self) -> dict[int, str]:
        """Node id → site of the sites that are online and not withdrawn."""
        online = set(self.grid.get_node_ids())
        active = {entry.site for entry in self.roster.active()}
        return {n: site for n, site in self.nodes.items() if n in online and site in active}

    def line_round(self, line: str) -> int:
        """Number of the last committed round of a line, of whatever kind."""
        return self.log.last_round(line)

    def _common(self) -> dict[str, object]:
        return {
            "members": lambda _grid: self.active_nodes(),
            "screen": self.screen,
            "min_sites": self.consortium.training.min_sites,
            "timeout": self.consortium.training.timeout_seconds,
            "spool": self.state.path / "spool",
        }

    def _told(self, training_round: int, stream: str) -> dict[str, int | float | str | bool]:
        return {msg.LEARNING_RATE: self._learning_rate(training_round), msg.STREAM: stream}

    def _learning_rate(self, training_round: int) -> float:
        t = self.consortium.training
        return scheduled(t.schedule, t.learning_rate, t.final_learning_rate, training_round - 1, t.rounds)

    def _evaluate(
        self, strategy: ContributionAveraging, outcome: RoundOutcome, index: int, *, last: bool
    ) -> dict[str, dict[str, float]]:
        every = self.consortium.training.evaluate_every
        if not every or (index % every and not last):
            return {}
        return strategy.evaluate(self.grid, outcome.round, outcome.arrays, {msg.SPLIT: msg.SPLIT_TEST})

    def _commit(
        self,
        strategy: ContributionAveraging,
        outcome: RoundOutcome,
        line: str,
        parent: ModelVersion,
        evaluation: Mapping[str, Mapping[str, float]],
        *,
        method: str | None,
    ) -> ModelVersion:
        """Make a round last, in one transaction; returns the model version it ended with."""
        stale: list[Path] = []
        with self.state.session() as session:
            version = parent
            if outcome.accepted:
                version = self.registry.add(
                    msg.named_arrays(outcome.arrays),
                    line=line,
                    round=outcome.round,
                    kind=outcome.kind,
                    parent=parent.id,
                    sites=outcome.weights,
                    method=method,
                    session=session,
                )
                stale = strategy.commit(outcome.round, session=session)
                self.roster.took_part(list(outcome.weights), outcome.round, session=session)
            self.log.append(
                line=line,
                round=outcome.round,
                kind=outcome.kind,
                outcome=outcome,
                evaluation=evaluation,
                version=version.id,
                session=session,
            )
        discard(stale)
        return version

    def _filed(self, sites: list[str], method: str) -> WithdrawalRecord:
        for record in self.withdrawals.all():
            if set(record.sites) == set(sites):
                return record
        return self.withdrawals.file(
            sites,
            reason="simulated withdrawal" if self.simulated else "filed with the consortium file",
            requested_by="simulation" if self.simulated else "operator",
            method=method,
            at_round=self.line_round(MAIN),
            simulated=self.simulated,
        )

    def _advance(self, record: WithdrawalRecord, state: WithdrawalState, note: str) -> WithdrawalRecord:
        order = list(WithdrawalState)
        if record.state in order and order.index(record.state) >= order.index(state):
            return record
        with self.state.session() as session:
            if state == WithdrawalState.RESTRICTED:
                self.cache.freeze(set(record.sites), session=session)
            advanced = self.withdrawals.advance(record.id, state, note=note, session=session)
        announce(Event("withdrawal", f"Withdrawal of {', '.join(record.sites)}: {state.value} ({note})"))
        return advanced

    def _propagate(self, departed: frozenset[str], record: WithdrawalRecord) -> None:
        reason = f"holds what {', '.join(sorted(departed))} contributed, withdrawn (request {record.id})"
        with self.state.session() as session:
            for site in sorted(departed):
                self.registry.revoke_descendants_of_site(site, reason, session=session)
            files = self.cache.erase(set(departed), session=session)
        discard(files)

    def _latest(self, line: str) -> ModelVersion:
        version = self.registry.latest(line)
        if version is None:
            raise RoundError(f"There is no model on line '{line}' yet.", "Train first.")
        return version

    def _initial(self) -> ModelVersion:
        version = self.registry.initial(MAIN)
        if version is None:
            raise RoundError("There is no initial model yet.", "Train first.")
        return version

    def _last_trained(self) -> ModelVersion:
        version = self.registry.latest(MAIN, kinds=("train", "unlearned", "initial"))
        if version is None:
            raise RoundError("There is no trained model yet.", "Train first.")
        return version

    def _announce_round(
        self,
        stage: str,
        outcome: RoundOutcome,
        index: int,
        total: int,
        evaluation: Mapping[str, Mapping[str, float]],
    ) -> None:
        metrics = {k: float(v) for k, v in outcome.metrics().items() if isinstance(v, int | float)}
        metrics |= {
            f"psnr/{site}": values[msg.PSNR] for site, values in evaluation.items() if msg.PSNR in values
        }
        metrics |= dict(outcome.notes)
        failed = [f"{s.site}: {s.outcome} ({s.reason})" for s in outcome.sites if s.outcome != "ok"]
        text = "; ".join(failed) or ("" if outcome.accepted else "step taken back and halved")
        announce(Event("round", text, stage, index, total, metrics))
