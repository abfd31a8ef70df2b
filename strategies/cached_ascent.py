"""Server-side gradient ascent on cached contributions, then retain-only fine-tuning."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Iterator
from logging import INFO
from typing import Any, ClassVar, Literal

from flwr.app import ArrayRecord
from flwr.common import log
from flwr.serverapp import Grid

from reconsent.config import Settings
from reconsent.errors import ContributionError, RoundError
from strategies import messages as msg
from strategies.cached_ascent_settings import CachedAscentSettings
from strategies.loss_gate import LossGate
from strategies.needs import ANCHORS, Needs
from strategies.outcomes import RoundOutcome
from strategies.unlearning_strategy import Departure
from unlearning.ascent import (
    Basis,
    ascend,
    orthonormal_basis,
    project_out,
    remove_return,
    unit,
    weighted_contribution,
)
from unlearning.contributions import ContributionCache
from unlearning.history import damped_specific
from unlearning.parameters import ParameterLayout, Vector, norm
from unlearning.reach import length_of_reach


class CachedAscent(LossGate):
    """Climb the withdrawn site's loss along its cached contributions, and repair with the others.

    With Δᵤᵗ the cached updates, pᵤᵗ the site's share and Δ̄ᵗ the average of all updates,

        d = Σₜ pᵤᵗ/(1 − pᵤᵗ) (Δᵤᵗ − Δ̄ᵗ) / ‖·‖,   R = median ‖Δᵤᵗ‖ over its last rounds,   θ ← θ − s R d,

    a few such steps, each followed by a retain-only round (``direction = "sum"``: Σₜ pᵤᵗ Δᵤᵗ instead). Wu et
    al. 2022 subtract the whole sum, which destroys the model; steps of the size of an update do not. These
    keep it in hand:

    * *backtracking*: a step after whose round the remaining sites' loss exceeds that of the model it began
      from by more than the share ``tolerance`` is taken back with its round, and halved;
    * a *trust region*: all steps together are no longer than ``trust_radius`` · R;
    * a *falling learning rate*: the retain rounds begin hotter than the training ended, which helps to leave
      G, and end cooler, which repairs the remaining organs;
    * the *contribution as the unit* (``unit = "contribution"``, ``alpha = 1``): with ``damping`` a the whole
      U ← (1 − a (1 − p)) U + p/(1 − p)(Δᵤ − Δ̄), exact on quadratic losses with a (1 − p) = η h;
    * the *geometric mean* of R and the contribution's length as the unit: a site of half the share has
      updates as long, a contribution half as long, and needs an ascent in between (found by trial);
    * a *rollback* to a former model, to ascend from there on what the site had contributed by then;
    * a step *projected off the fresh updates* of its round, θ ← θ + m − (I − QᵀQ) s R d;
    * a *reversion guard*, if asked for: averaged retain updates are projected off the span of the site's
      cached updates (``span``; needs a history), or freed of what returns towards G (``return``; after
      FedOSD, Pan et al. 2025).

    Uses nothing but the cache, the remaining sites' losses, and the size of things.
    """

    name: ClassVar[str] = "cached-ascent"
    summary_line: ClassVar[str] = "server-side ascent on cached contributions, then retain-only fine-tuning"
    source: ClassVar[str] = "this project; after Wu et al. 2022, Huynh et al. 2024 and Pan et al. 2025"
    cost_line: ClassVar[str] = (
        "the budget of rounds at the remaining sites, and one evaluation of their loss for each step"
    )
    settings_type: ClassVar[type[CachedAscentSettings]] = CachedAscentSettings
    changing: ClassVar[tuple[str, ...]] = (
        *LossGate.changing,
        *("alpha", "_steps_left", "_steps_taken", "_travelled", "_direction"),
    )
    settings: CachedAscentSettings

    def __init__(self, departure: Departure, settings: CachedAscentSettings, **kwargs: Any) -> None:
        super().__init__(departure, settings, **kwargs)
        self._steps_left = settings.ascent_rounds or max(1, departure.budget_rounds // 2)
        self.alpha = (settings.alpha or 0.0) / self._steps_left
        self._steps_taken = 0
        self._travelled = 0.0
        self._direction: Vector | None = None
        self._size = 0.0
        self._guard: Basis | None = None
        self._original: Vector | None = None
        self._back: int | None = None
        self._pending = 0.0

    @property
    def contributions(self) -> ContributionCache:
        """The cache; the method cannot do without."""
        if self.cache is None:
            raise ContributionError(
                "cached-ascent needs the contribution cache, and none is kept.",
                "Give the strategy a cache and train with it, or use retain-ft.",
            )
        return self.cache

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        """The cache; single updates for some settings, former models for another."""
        assert isinstance(settings, CachedAscentSettings)  # noqa: S101 - checked by the registry
        single = settings.guard == "span" or settings.recency < 1
        history: Literal["none", "some", "all"] = "some" if single else "none"
        if settings.damping is not None:
            history = "all"
        return Needs(contributions=True, history=history, anchors=settings.rollback is not None)

    @property
    def planned(self) -> bool:
        """Going back takes away what the choice was made of."""
        return self.settings.rollback is not None

    @property
    def changing_names(self) -> tuple[str, ...]:
        """With a rollback also what :meth:`begin` has found."""
        return (*self.changing, "_back", "_size", "_original", "_guard") if self.planned else self.changing

    @property
    def start_round(self) -> int | None:
        """The anchor it goes back to, if it does."""
        if self.settings.rollback is None or self._back is not None:
            return self._back
        farthest = self.settings.rollback * max(self.departure.models, default=0)
        found = [t for t in self.departure.models if 0 < t <= farthest]
        if not found:
            kept = ", ".join(map(str, sorted(set(self.departure.models) - {0}))) or "none"
            raise ContributionError(
                f"cached-ascent is to go back to round {farthest:g} or before, and the kept models are of "
                f"rounds {kept}.",
                f"Raise rollback, or keep earlier ones. {ANCHORS}",
            )
        self._back = max(found)
        return self._back

    def begin(self, grid: Grid, arrays: ArrayRecord) -> ArrayRecord:
        """Compute d, R, the guard, and the remaining sites' loss of the model it begins from."""
        self.check()
        named = msg.named_arrays(arrays)
        layout = ParameterLayout.of(named)
        self._original = layout.flatten(named)
        s, back = self.settings, self.start_round
        if back is not None:
            arrays = self.departure.models[back]()
            named = msg.named_arrays(arrays)
        contribution = self._contribution(back)
        if s.orthogonalise:
            contribution = project_out(contribution, orthonormal_basis(self._remaining_sums(back)))
        self._direction = unit(contribution)
        self._size = self._unit_length(contribution, back)
        if s.guard == "span":
            self._guard = orthonormal_basis(self._guard_updates(back))
        if s.tolerance is not None or s.alpha is None:
            self._refer_to(grid, arrays)
        if s.alpha is None:
            self.alpha = self._probed_length(grid, named) / self._steps_left
        sites = ", ".join(self.departure.contributors)
        log(INFO, "cached-ascent: unit %.4g, alpha = %g, sites %s", self._size, self.alpha, sites)
        return arrays

    def prepare(self, server_round: int, parameters: Vector) -> tuple[Vector, dict[str, float]]:
        """Take the ascent step of this round, if one is due."""
        del server_round
        length, notes = self._due()
        if length == 0.0 or self._direction is None:
            return parameters, {}
        if self.settings.project_fresh:
            self._pending = length
            return parameters, notes
        return ascend(parameters, self._direction, length), notes

    def combine(self, server_round: int, start: Vector, update: Vector) -> Vector:
        """Server momentum, then the reversion guard, then a step that waited for the round's updates."""
        update = super().combine(server_round, start, update)
        if self._guard is not None:
            update = project_out(update, self._guard)
        elif self.settings.guard == "return" and self._original is not None:
            update = remove_return(update, start - self._original)
        length, self._pending = self._pending, 0.0
        if length == 0.0 or self._direction is None:
            return update
        fresh = orthonormal_basis(self.spool.get(kept.site) for kept in self.spool.updates())
        return ascend(update, project_out(self._direction, fresh), length)

    def run_round(self, grid: Grid, server_round: int, arrays: ArrayRecord) -> RoundOutcome:
        """One round; an ascent step that cost the remaining sites too much is taken back and halved.

        So is one after which the sites could not train at all: what it did to them is then worse than any
        loss. A round that failed because nobody answered says nothing of the step, and is an error.
        """
        momentum, began, (length, notes) = self._momentum, time.monotonic(), self._due()
        try:
            outcome = super().run_round(grid, server_round, arrays)
        except RoundError:
            if length == 0.0 or self.settings.tolerance is None or not self._diverged():
                raise
            seconds = time.monotonic() - began
            failed = RoundOutcome(
                server_round, self.kind, arrays, {}, tuple(self._outcomes), seconds, notes, accepted=False
            )
            return self._taken_back(failed, momentum)
        notes = dict(outcome.notes)
        if "step-norm" not in notes:
            return dataclasses.replace(outcome, notes=notes | self._gate_cost())
        if self.settings.tolerance is not None:
            before, loss = self._gate(grid, server_round, outcome.arrays)
            notes |= {"retain-loss-before": before}
            if math.isfinite(loss):
                notes |= {"retain-loss-after": loss}
            notes |= self._gate_cost()
            if not loss <= (1 + self.settings.tolerance) * before:
                refused = dataclasses.replace(outcome, arrays=arrays, weights={}, notes=notes, accepted=False)
                return self._taken_back(refused, momentum)
        self._steps_left -= 1
        self._steps_taken += 1
        self._travelled += notes["step-norm"] / self._size
        return dataclasses.replace(outcome, notes=notes | self._gate_cost())

    def finish(self, arrays: ArrayRecord) -> ArrayRecord:
        """The last ascent step, if one is asked for.

        Raises
        ------
        ContributionError
            If steps were asked for and every one was taken back: the model is then still G.
        """
        if self.settings.alpha != 0 and self._steps_taken == 0 and self._direction is not None:
            raise ContributionError(
                "Every ascent step was taken back; nothing was unlearned.",
                "Lower alpha (or reach), raise tolerance or rounds-fraction.",
            )
        if self.settings.final_alpha == 0 or self._direction is None:
            return arrays
        named = msg.named_arrays(arrays)
        layout = ParameterLayout.of(named)
        length = self.settings.final_alpha * self._size
        after = ascend(layout.flatten(named), self._direction, length)
        return msg.array_record(layout.unflatten(after, named))

    def _probed_length(self, grid: Grid, named: msg.NamedArrays) -> float:
        """Length of the ascent in units of R that has the reach asked for; see :mod:`unlearning.reach`."""
        assert self._direction is not None  # noqa: S101 - set by begin
        layout, direction = ParameterLayout.of(named), self._direction
        start = layout.flatten(named)

        def loss_at(length: float) -> float:
            there = layout.unflatten(ascend(start, direction, length * self._size), named)
            return self._gate(grid, 0, msg.array_record(there))[1]

        trained, untrained = self._gate(grid, 0, self.departure.initial())
        length = length_of_reach(
            loss_at,
            trained=trained,
            untrained=untrained,
            reach=self.settings.reach,
            longest=self.settings.trust_radius,
        )
        log(INFO, "cached-ascent: a reach of %g is %.3g R long", self.settings.reach, length)
        return length

    def _due(self) -> tuple[float, dict[str, float]]:
        """Length of the step before the next round, 0 if none is due; and the notes of it."""
        if self._steps_left == 0:
            return 0.0, {}
        alpha = max(0.0, min(self.alpha, self.settings.trust_radius - self._travelled))
        length = alpha * self._size
        return length, {"alpha": alpha, "step-norm": length}

    def _diverged(self) -> bool:
        return any(o.outcome in ("app_error", "refused") and not o.declined for o in self._outcomes)

    def _taken_back(self, outcome: RoundOutcome, momentum: Vector | None) -> RoundOutcome:
        self.alpha /= 2
        self._momentum = momentum
        self._mean = None
        self.spool.clear()
        return outcome

    def _contribution(self, back: int | None) -> Vector:
        s, sites = self.settings, self.departure.contributors
        if s.damping is not None:
            return damped_specific(self.contributions, sites, damping=s.damping, until=back)
        return weighted_contribution(
            self.contributions, sites, kind=s.direction, recency=s.recency, at_round=back
        )

    def _unit_length(self, contribution: Vector, back: int | None) -> float:
        """What lengths are in units of."""
        if self.settings.unit == "contribution":
            return norm(contribution)
        size = self._update_size(back)
        return size if self.settings.unit == "update" else math.sqrt(size * norm(contribution))

    def _update_size(self, back: int | None) -> float:
        """R: the median ‖Δᵤ‖ over the last rounds, up to ``back``."""

        def newest(site: str) -> list[float]:
            known = zip(self.contributions.shares(site), self.contributions.norms(site), strict=True)
            return [size for t, size in known if back is None or t <= back][-self.settings.norm_window :]

        return statistics.mean(statistics.median(newest(site)) for site in self.departure.contributors)

    def _remaining_sums(self, back: int | None) -> Iterator[Vector]:
        for site in self.contributions.sites():
            if site not in self.departure.sites and site not in self.barred:
                yield self.contributions.running(site, "sum", at_round=back)

    def _guard_updates(self, back: int | None) -> Iterator[Vector]:
        sites = self.departure.contributors
        share = max(1, self.settings.guard_size // len(sites))
        for site in sites:
            kept = [t for t in self.contributions.kept_rounds(site) if back is None or t <= back]
            for round_ in kept[:: max(1, -(-len(kept) // share))]:
                yield self.contributions.update_of(site, round_)
