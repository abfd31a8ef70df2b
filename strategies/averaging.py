"""Federated averaging that screens, caches and streams."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from logging import INFO, WARNING
from pathlib import Path
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result
from sqlalchemy.orm import Session

from reconsent.faults import reached
from strategies import messages as msg
from strategies.correspondence import Correspondence
from strategies.exchange import let_go_of_each
from strategies.members import Members, RoundConfig, connected_nodes
from strategies.outcomes import Moved, RoundOutcome, SiteOutcome, TooFewRepliesError, weighted_metrics
from strategies.replies import Reply, readable
from strategies.screening import UpdateScreen
from strategies.site_privacy import ServerNoise
from unlearning.contributions import ContributionCache
from unlearning.parameters import ParameterLayout, Vector
from unlearning.spool import UpdateSpool

__all__ = ["ContributionAveraging", "RoundConfig", "RoundOutcome", "SiteOutcome", "weighted_metrics"]


class ContributionAveraging(Correspondence):
    """Federated averaging (McMahan et al. 2017) that keeps what each site contributed.

    Each reply is screened as it comes (shape, dtype, finite, norm), and a newcomer's norm against the
    others' when all are in; a bad one is refused, named, and the round goes on. Accepted updates go to
    disk and are averaged, in the order of the sites' names, when the
    round ends, so that neither memory nor the model's last bits depend on how many replies come when:

        θᵗ = θᵗ⁻¹ + Σᵢ pᵢᵗ Δᵢᵗ,   pᵢᵗ = nᵢ / Σⱼ nⱼ over the accepted replies.

    Knows nothing of MRI: any ClientApp that answers ``train`` messages with one ArrayRecord under
    ``arrays`` and ``num-examples`` in one MetricRecord under ``metrics`` can take part.

    Parameters
    ----------
    members : Members (default: every connected node)
        Node id → site of those that may be asked.
    barred : Iterable[str] (default: none)
        Sites that are never asked, whatever ``members`` says.
    cache : ContributionCache, optional
        Where contributions are kept; without one the updates are averaged and dropped.
    screen : UpdateScreen, optional
        What a reply must satisfy.
    round_config : RoundConfig, optional
        What sites are told beside the round's number.
    site_config : Callable, optional
        What one site is told besides, in training messages, by its name.
    min_sites : int (default: 1)
        A round with fewer accepted replies is an error.
    timeout : float (default: 3600)
        Seconds a site has for a round.
    spool : Path, optional
        Directory for the updates of the round in progress (default: a temporary one).
    window : int, optional
        Most messages underway at once (default: as many as there are sites); see
        :func:`~strategies.exchange.exchange`.
    patients_left : Callable, optional
        Sites, of a simulation, whose withdrawn patients have left; the sites are told so in every message.
    barred_now : Callable, optional
        Sites that were barred since: a round does not wait for them, and a late reply of theirs is refused.
    site_noise : ServerNoise, optional
        Clips every update and adds noise to their mean: site-level differential privacy at the server.
    """

    kind = "train"

    def __init__(
        self,
        *,
        members: Members = connected_nodes,
        barred: Iterable[str] = (),
        cache: ContributionCache | None = None,
        screen: UpdateScreen | None = None,
        round_config: RoundConfig | None = None,
        site_config: Callable[[str], Mapping[str, int | float | str | bool]] | None = None,
        min_sites: int = 1,
        timeout: float = 3600.0,
        spool: Path | None = None,
        window: int | None = None,
        barred_now: Callable[[], Collection[str]] = frozenset,
        patients_left: Callable[[], Collection[str]] = frozenset,
        site_noise: ServerNoise | None = None,
    ) -> None:
        super().__init__(
            members=members,
            barred=barred,
            site_config=site_config,
            timeout=timeout,
            window=window,
            barred_now=barred_now,
            patients_left=patients_left,
        )
        self.cache = cache
        self.screen = screen or UpdateScreen()
        self.round_config = round_config or (lambda _round: {})
        self.min_sites = min_sites
        self.site_noise = site_noise
        if spool is None:
            spool = Path(tempfile.mkdtemp(prefix="reconsent-"))
            # Goes with the strategy. A TemporaryDirectory would warn that nobody closed it.
            weakref.finalize(self, shutil.rmtree, spool, ignore_errors=True)
        self.spool = UpdateSpool(spool)
        self._begun: ArrayRecord | None = None
        self._layout: ParameterLayout | None = None
        self._sent: Mapping[str, np.ndarray] = {}
        self._mean: Vector | None = None
        self._outcomes: list[SiteOutcome] = []
        self._replied = 0.0
        self.failures: dict[str, str] = {}
        self._evaluated: dict[str, Moved] = {}

    # ---- Flower's interface ---------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """One training message for each active site."""
        self._begin(arrays)
        told = {**dict(config), **self.round_config(server_round)}
        return self._messages(msg.TRAIN, server_round, arrays, told, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Screen, spool and average replies; ``replies`` may be lazy and is consumed one at a time.

        Returns ``(None, None)`` if no reply is acceptable, as Flower's own strategies do.
        """
        arrays = self._aggregate(server_round, (self._as_reply(reply) for reply in replies))
        if arrays is None:
            return None, None
        weights = self.spool.weights()
        self.commit(server_round)
        return arrays, RoundOutcome(
            server_round, self.kind, arrays, weights, tuple(self._outcomes), 0.0
        ).metrics()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """One evaluation message for each active site."""
        return self._messages(msg.EVALUATE, server_round, arrays, dict(config), grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Means of the sites' metrics, weighted by their number of examples."""
        del server_round
        values = {r.site: msg.metrics_of(r.message) for r in map(self._as_reply, replies) if r.message}
        return weighted_metrics(values)

    def summary(self) -> None:
        """Log what this strategy will do."""
        log(INFO, "\t├── %s", type(self).__name__)
        log(INFO, "\t├── barred sites: %s", ", ".join(sorted(self.barred)) or "none")
        log(INFO, "\t├── at least %d sites a round, %.0f s each", self.min_sites, self.timeout)
        log(INFO, "\t└── contributions: %s", "cached" if self.cache else "not cached")

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run ``num_rounds`` rounds as Flower's ``Strategy.start`` does, one reply in memory at a time.

        Rounds are counted from 1, or from after those that the cache holds already: unlearning with the cache
        of the training goes on where the training ended. ``timeout`` replaces the constructor's, if given.
        """
        if timeout is not None:
            self.timeout = timeout
        self.summary()
        result = Result(arrays=initial_arrays)
        fixed = cast("dict[str, int | float | str | bool]", dict(train_config or {}))
        own, self.round_config = self.round_config, lambda t: {**fixed, **own(t)}
        before = self.cache.last_round() if self.cache is not None else 0
        if evaluate_fn and (metrics := evaluate_fn(before, initial_arrays)) is not None:
            result.evaluate_metrics_serverapp[before] = metrics
        arrays = self.begin(grid, initial_arrays)
        for outcome in self.rounds(grid, arrays, num_rounds, first_round=before + 1):
            if outcome.accepted:
                self.commit(outcome.round)
            result.arrays = outcome.arrays
            result.train_metrics_clientapp[outcome.round] = outcome.metrics()
            per_site = self.evaluate(grid, outcome.round, outcome.arrays, evaluate_config or {})
            if (mean := weighted_metrics(per_site)) is not None:
                result.evaluate_metrics_clientapp[outcome.round] = mean
            if evaluate_fn and (metrics := evaluate_fn(outcome.round, outcome.arrays)) is not None:
                result.evaluate_metrics_serverapp[outcome.round] = metrics
        result.arrays = self.finish(result.arrays)
        return result

    # ---- Reconsent's interface: rounds one by one, each committed by whoever asks for them -------------

    def rounds(
        self, grid: Grid, arrays: ArrayRecord, num_rounds: int, *, first_round: int = 1
    ) -> Iterator[RoundOutcome]:
        """Run rounds ``first_round`` … ``first_round + num_rounds − 1`` from ``arrays``.

        Each outcome is yielded before anything of it is kept: call :meth:`commit` to fold its updates into
        the cache (in the transaction that records the round), or drop it.

        Raises
        ------
        TooFewRepliesError
            If fewer than ``min_sites`` acceptable replies came; nothing of the round is kept.
        """
        for server_round in range(first_round, first_round + num_rounds):
            outcome = self.run_round(grid, server_round, arrays)
            arrays = outcome.arrays
            yield outcome

    def run_round(self, grid: Grid, server_round: int, arrays: ArrayRecord) -> RoundOutcome:
        """One round: prepare, ask, screen, average, combine. See :meth:`rounds`."""
        began = time.monotonic()
        sent, notes = self._prepared(server_round, arrays)
        asked = self.configure_train(server_round, sent, ConfigRecord(), grid)
        replies = let_go_of_each(self._exchange(grid, asked), sent=sent)
        del asked
        del sent
        prepared = self._replied = time.monotonic()
        after = self._aggregate(server_round, replies)
        if after is None:
            raise TooFewRepliesError(
                self._too_few(server_round),
                "Look at the sites' logs, then run it again.",
                round=server_round,
                kind=self.kind,
                sites=tuple(self._outcomes),
                seconds=time.monotonic() - began,
            )
        return RoundOutcome(
            server_round,
            self.kind,
            after,
            self.spool.weights(),
            tuple(self._outcomes),
            (ended := time.monotonic()) - began,
            notes,
            steps={
                "prepare": prepared - began,
                "replies": self._replied - prepared,
                "average": ended - self._replied,
            },
        )

    def _prepared(self, server_round: int, arrays: ArrayRecord) -> tuple[ArrayRecord, dict[str, float]]:
        """The model to send, and notes for the record."""
        self._begin(arrays)
        assert self._layout is not None  # noqa: S101 - set by _begin
        start = self._layout.flatten(self._sent)
        changed, notes = self.prepare(server_round, start)
        if changed is start:
            return arrays, notes
        return msg.array_record(self._layout.unflatten(changed, self._sent)), notes

    def commit(self, server_round: int, *, session: Session | None = None) -> list[Path]:
        """Fold the last round's updates into the cache, and drop them.

        Returns
        -------
        Files to discard after the transaction.
        """
        superseded: list[Path] = []
        if self.cache is not None and self._mean is not None:
            superseded = self.cache.record(server_round, self.spool, self._mean, session=session)
        self._mean = None
        self.spool.clear()
        return superseded

    def evaluate(
        self, grid: Grid, server_round: int, arrays: ArrayRecord, config: Mapping[str, object]
    ) -> dict[str, dict[str, float]]:
        """Each active site's metrics of the model ``arrays``; how others failed is in ``failures``."""
        to_send = self.configure_evaluate(server_round, arrays, ConfigRecord(dict(config)), grid)  # type: ignore[arg-type]
        replies = self._exchange(grid, to_send)
        found = {}
        self.failures = {}
        size = msg.payload_bytes(arrays)
        for reply in replies:
            moved = self._evaluated.get(reply.site, Moved())
            self._evaluated[reply.site] = moved.plus(size if reply.sent else 0, reply.received)
            if reply.message is not None:
                found[reply.site] = msg.metrics_of(reply.message)
            else:
                self.failures[reply.site] = reply.status
                log(WARNING, "evaluate: site %s: %s (%s)", reply.site, reply.status, reply.reason)
        return dict(sorted(found.items()))

    def evaluation_bytes(self) -> dict[str, Moved]:
        """Model bytes by site of the messages that evaluate, for whatever end, since this was told last."""
        told, self._evaluated = self._evaluated, {}
        return dict(sorted(told.items()))

    # ---- inside -----------------------------------------------------------------------------------------

    def _begin(self, arrays: ArrayRecord) -> None:
        if arrays is self._begun:
            return
        self._begun = arrays
        self._sent = msg.viewed_arrays(arrays)
        self._layout = ParameterLayout.of(self._sent)

    def _aggregate(self, server_round: int, replies: Iterable[Reply]) -> ArrayRecord | None:
        assert self._layout is not None  # noqa: S101 - set by _begin
        self.spool.clear()
        self._outcomes = []
        sent_bytes = msg.payload_bytes(self._begun) + self.bytes_besides(server_round)
        for reply in replies:
            self._take(server_round, reply, sent_bytes)
            del reply  # or it would be in memory while the next one comes
        self._replied = time.monotonic()
        self._outcomes.sort(key=lambda outcome: outcome.site)
        self._drop_outliers()
        weights = self.spool.weights() if self.spool.updates() else {}
        if not self.enough(weights):
            log(WARNING, "aggregate_train: %s", self._too_few(server_round))
            return None
        self._mean = self._average(weights)
        mean = self._mean
        if self.site_noise is not None:
            mean = self.site_noise.noised(server_round, mean, weights)
        mean = self.combine(server_round, self._layout.flatten(self._sent), mean)
        # Of a large model there shall be no more copies than needed, here and while the round is kept.
        averaged = msg.array_record(self._layout.shifted(self._sent, mean))
        self._begun, self._sent = None, {}
        return averaged

    def _average(self, weights: Mapping[str, float]) -> Vector:
        assert self._layout is not None  # noqa: S101 - set by _begin
        mean = np.zeros(self._layout.size, np.float32)
        for site, share in weights.items():
            update = self.spool.get(site)
            update *= np.float32(share)
            mean += update
            del update
        return mean

    def _take(self, server_round: int, reply: Reply, sent_bytes: int) -> None:
        assert self._layout is not None  # noqa: S101 - set by _begin
        if reply.message is None:
            down = sent_bytes if reply.sent else 0
            outcome = SiteOutcome(
                reply.site, reply.status, reply.reason, bytes_down=down, bytes_up=reply.received
            )
        else:
            metrics = msg.metrics_of(reply.message)
            received = reply.received
            screened = self.screen.screen(reply.site, reply.message, self._layout, self._sent)
            if isinstance(screened, str):
                why = readable(screened)
                outcome = SiteOutcome(reply.site, "refused", why, metrics, 0.0, sent_bytes, received)
            else:
                if self.site_noise is not None:
                    screened = self.site_noise.screened(screened)
                kept = self.accept(server_round, reply.site, screened)
                if kept is not None:
                    self.spool.put(reply.site, kept.update, examples=kept.examples, norm=kept.norm)
                    reached("update-kept")
                metrics[msg.NUM_EXAMPLES] = float(screened.examples)
                outcome = SiteOutcome(
                    reply.site, "ok", screened.remark, metrics, screened.norm, sent_bytes, received
                )
        if outcome.reason:
            log(WARNING, "aggregate_train: site %s: %s (%s)", reply.site, outcome.outcome, outcome.reason)
        self._outcomes.append(outcome)

    def _drop_outliers(self) -> None:
        """Refuse, of the updates that are in the spool, those that only the whole round shows to be wrong."""
        reasons = self.screen.outliers([update.site for update in self.spool.updates()])
        for index, outcome in enumerate(self._outcomes):
            if (reason := reasons.get(outcome.site)) is not None:
                self.spool.drop(outcome.site)
                self._outcomes[index] = outcome.refused(reason)
                log(WARNING, "aggregate_train: site %s: refused (%s)", outcome.site, reason)

    def _too_few(self, server_round: int) -> str:
        failed = [f"{o.site}: {o.outcome} ({o.reason})" for o in self._outcomes if o.outcome != "ok"]
        return (
            f"Round {server_round} got {len(self.spool.updates())} acceptable replies and needs "
            f"{max(self.min_sites, 1)}. " + ("; ".join(failed) or "No site was online.")
        )
