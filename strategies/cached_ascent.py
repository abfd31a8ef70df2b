"""Server-side gradient ascent on cached contributions, then retain-only fine-tuning."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Iterator
from logging import INFO
from typing import Any, ClassVar, Literal, Self

from flwr.app import ArrayRecord
from flwr.common import log
from flwr.serverapp import Grid
from pydantic import Field, model_validator

from reconsent.errors import ContributionError, RoundError
from strategies import messages as msg
from strategies.outcomes import RoundOutcome
from strategies.retain_fine_tuning import RetainFineTuning, RetainFineTuningSettings
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
from unlearning.parameters import ParameterLayout, Vector
from unlearning.reach import length_of_reach


class CachedAscentSettings(RetainFineTuningSettings):
    """Settings of cached ascent; lengths are in units of R, the size of one update of the site."""

    rate: float = Field(
        default=1.5, gt=0, description="sites' learning rate in the first round, over that of the training"
    )
    final_rate: float | None = Field(
        default=0.25, gt=0, description="the same in the last round; empty: as rate"
    )
    alpha: float | None = Field(
        default=1.85,
        ge=0,
        description="length of all ascent steps together, in units of R; empty: found by probing the "
        "remaining sites' loss, see reach",
    )
    reach: float = Field(
        default=0.62,
        gt=0,
        lt=1,
        description="if alpha is empty: the share of the way from the trained back to the untrained model "
        "that the remaining sites' loss would go if the whole ascent were taken at once",
    )
    ascent_rounds: int | None = Field(
        default=None,
        ge=1,
        description="equal steps it is taken in, one before each of the first rounds; 1: one-shot; "
        "empty: half of the rounds",
    )
    final_alpha: float = Field(default=0.0, ge=0, description="length of a last step after all rounds")
    direction: Literal["sum", "specific"] = Field(
        default="specific", description="the site's updates, or what they added beyond the other sites'"
    )
    recency: float = Field(default=1.0, gt=0, le=1, description="weight of a round over that of the next")
    orthogonalise: bool = Field(
        default=False, description="project the direction off the remaining sites' cached contributions"
    )
    guard: Literal["none", "span", "return"] = Field(
        default="none",
        description="hold back reversion: project retain updates off the span of the site's cached "
        "updates (span), or take out only what leads back to the original model (return)",
    )
    guard_size: int = Field(default=40, ge=1, description="cached updates that make the span")
    norm_window: int = Field(default=10, ge=1, description="last updates whose median norm is R")
    trust_radius: float = Field(default=10.0, gt=0, description="longest sum of all steps, in units of R")
    tolerance: float | None = Field(
        default=0.5,
        ge=0,
        description="rise of the remaining sites' loss after a step's round above which it is taken back "
        "and halved; empty: never",
    )

    @model_validator(mode="after")
    def _recency_has_updates_to_weigh(self) -> Self:
        if self.recency < 1 and self.direction == "specific":
            raise ValueError(
                "a recency below 1 weighs single updates, and of the specific contribution only the running "
                "sum is kept; use direction = 'sum' with it"
            )
        return self


class CachedAscent(RetainFineTuning):
    """Climb the withdrawn site's loss along its cached contributions, and repair with the others.

    With Δᵤᵗ the cached updates, pᵤᵗ the site's share and Δ̄ᵗ the average of all updates,

        d = Σₜ pᵤᵗ/(1 − pᵤᵗ) (Δᵤᵗ − Δ̄ᵗ) / ‖·‖,   R = median ‖Δᵤᵗ‖ over its last rounds,   θ ← θ − s R d,

    a few such steps, each followed by a retain-only round (``direction = "sum"``: Σₜ pᵤᵗ Δᵤᵗ instead). Wu et
    al. 2022 subtract the whole sum, which destroys the model; steps of the size of an update do not. Four
    things keep it in hand:

    * *backtracking*: a step after whose round the remaining sites' loss exceeds that of G by more than
      ``tolerance`` is taken back with its round, and halved;
    * a *trust region*: all steps together are no longer than ``trust_radius`` · R;
    * a *falling learning rate*: the retain rounds begin hotter than the training ended, which helps to leave
      G, and end cooler, which repairs the remaining organs;
    * a *reversion guard*, if asked for: averaged retain updates are projected off the span of the site's
      cached updates (``span``; needs a history), or freed of what returns towards G (``return``; after
      FedOSD, Pan et al. 2025).

    Uses nothing but the cache, the remaining sites' losses, and the size of things.
    """

    name: ClassVar[str] = "cached-ascent"
    summary_line: ClassVar[str] = "server-side ascent on cached contributions, then retain-only fine-tuning"
    settings_type: ClassVar[type[CachedAscentSettings]] = CachedAscentSettings
    changing: ClassVar[tuple[str, ...]] = (
        *RetainFineTuning.changing,
        *("alpha", "_steps_left", "_steps_taken", "_travelled", "_direction"),
        *("_gate_sites", "_gate_losses", "_gate_examples", "_gate_seconds", "_gate_bytes"),
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
        # Of G at each remaining site: the loss that a step is judged against.
        self._gate_sites: list[str] = []
        self._gate_losses: list[float] = []
        self._gate_examples: list[float] = []
        self._gate_seconds = 0.0
        self._gate_bytes = 0

    @property
    def contributions(self) -> ContributionCache:
        """The cache; the method cannot do without."""
        if self.cache is None:
            raise ContributionError(
                "cached-ascent needs the contribution cache, and none is kept.",
                "Give the strategy a cache and train with it, or use retain-ft.",
            )
        return self.cache

    def begin(self, grid: Grid, arrays: ArrayRecord) -> ArrayRecord:
        """Compute d, R, the guard, and the remaining sites' loss of G."""
        named = msg.named_arrays(arrays)
        self._original = ParameterLayout.of(named).flatten(named)
        sites = sorted(self.departure.sites - self.departure.bystanders)
        s = self.settings
        contribution = weighted_contribution(self.contributions, sites, kind=s.direction, recency=s.recency)
        if s.orthogonalise:
            contribution = project_out(contribution, orthonormal_basis(self._remaining_sums()))
        self._direction = unit(contribution)
        self._size = statistics.mean(
            statistics.median(self.contributions.norms(site)[-s.norm_window :]) for site in sites
        )
        if s.guard == "span":
            self._guard = orthonormal_basis(self._guard_updates())
            if self._guard.shape[0] == 0:
                raise ContributionError(
                    "The reversion guard 'span' needs single cached updates of the site, and none were kept.",
                    "Train with contributions.history-every > 0, or set guard = 'return' or 'none'.",
                )
        if s.tolerance is not None or s.alpha is None:
            self._refer_to(grid, arrays)
        if s.alpha is None:
            self.alpha = self._probed_length(grid, named) / self._steps_left
        log(INFO, "cached-ascent: R = %.4g, alpha = %g, sites %s", self._size, self.alpha, ", ".join(sites))
        return arrays

    def prepare(self, server_round: int, parameters: Vector) -> tuple[Vector, dict[str, float]]:
        """Take the ascent step of this round, if one is due."""
        del server_round
        length = self._due()
        if length == 0.0 or self._direction is None:
            return parameters, {}
        return ascend(parameters, self._direction, length), {"alpha": self.alpha, "step-norm": length}

    def combine(self, server_round: int, start: Vector, update: Vector) -> Vector:
        """Server momentum, then the reversion guard."""
        update = super().combine(server_round, start, update)
        if self._guard is not None:
            return project_out(update, self._guard)
        if self.settings.guard == "return" and self._original is not None:
            return remove_return(update, start - self._original)
        return update

    def run_round(self, grid: Grid, server_round: int, arrays: ArrayRecord) -> RoundOutcome:
        """One round; an ascent step that cost the remaining sites too much is taken back and halved.

        So is one after which the sites could not train at all: what it did to them is then worse than any
        loss. A round that failed because nobody answered says nothing of the step, and is an error.
        """
        momentum, began, length = self._momentum, time.monotonic(), self._due()
        try:
            outcome = super().run_round(grid, server_round, arrays)
        except RoundError:
            if length == 0.0 or self.settings.tolerance is None or not self._diverged():
                raise
            notes = {"alpha": self.alpha, "step-norm": length}
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
        assert self._original is not None and self._direction is not None  # noqa: S101 - set by begin
        layout, original, direction = ParameterLayout.of(named), self._original, self._direction

        def loss_at(length: float) -> float:
            there = layout.unflatten(ascend(original, direction, length * self._size), named)
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

    def _gate_cost(self) -> dict[str, float]:
        """What asking the sites for their loss has cost since this was told last."""
        told: dict[str, float] = {"gate-seconds": self._gate_seconds, "gate-bytes": self._gate_bytes}
        self._gate_seconds, self._gate_bytes = 0.0, 0
        return told if told["gate-bytes"] else {}

    def _due(self) -> float:
        """Length of the step before the next round; 0 if none is due."""
        if self._steps_left == 0:
            return 0.0
        return max(0.0, min(self.alpha, self.settings.trust_radius - self._travelled)) * self._size

    def _diverged(self) -> bool:
        return any(o.outcome in ("app_error", "refused") and not o.declined for o in self._outcomes)

    def _taken_back(self, outcome: RoundOutcome, momentum: Vector | None) -> RoundOutcome:
        self.alpha /= 2
        self._momentum = momentum
        self._mean = None
        self.spool.clear()
        return outcome

    def _refer_to(self, grid: Grid, arrays: ArrayRecord) -> None:
        """Ask the remaining sites for their loss of G, which later ones are judged against."""
        values = self._gate_metrics(grid, 0, arrays)
        told = {s: v for s, v in values.items() if math.isfinite(v[0]) and v[1] > 0}
        if not told:
            raise ContributionError(
                "No remaining site reported a loss, so the cost of the ascent cannot be judged.",
                "Bring the sites online, or set tolerance to empty and alpha to a number to go without.",
            )
        self._gate_sites = sorted(told)
        self._gate_losses = [told[site][0] for site in self._gate_sites]
        self._gate_examples = [told[site][1] for site in self._gate_sites]

    def _gate(self, grid: Grid, server_round: int, arrays: ArrayRecord) -> tuple[float, float]:
        """Mean loss of G and of ``arrays`` over the sites that know both; infinite if one has none now.

        A model that a step has ruined for a site makes its reconstructor fail. Over those who still answer
        the mean could even be lower than before. A site that has gone says nothing of the step.

        Raises
        ------
        RoundError
            If all of them have gone.
        """
        values = self._gate_metrics(grid, server_round, arrays)
        known = zip(self._gate_sites, self._gate_losses, self._gate_examples, strict=True)
        both = [(before, values[site][0], n) for site, before, n in known if site in values]
        if not both:
            raise RoundError(
                "None of the sites that the cost of the ascent is judged by is there any more.",
                "Bring them online and run it again.",
            )
        total = sum(n for _, _, n in both)
        return (
            sum(n * before for before, _, n in both) / total,
            sum(n * after for _, after, n in both) / total,
        )

    def _gate_metrics(
        self, grid: Grid, server_round: int, arrays: ArrayRecord
    ) -> dict[str, tuple[float, float]]:
        """Loss of ``arrays`` at each remaining site, and over how many slices; infinite where it fails."""
        values = self.evaluate(grid, server_round, arrays, {msg.SPLIT: msg.SPLIT_GATE})
        self._gate_seconds += sum(metrics.get(msg.SECONDS, 0.0) for metrics in values.values())
        self._gate_bytes += msg.payload_bytes(arrays) * len(values)
        found = {site: (math.inf, 1.0) for site, status in self.failures.items() if status == "app_error"}
        for site, metrics in values.items():
            loss = metrics.get(msg.LOSS, math.nan)
            examples, enrolled = metrics.get(msg.NUM_EXAMPLES, 1.0), self.screen.enrolled(site)
            # No site has a louder say in this than its training data give it.
            weight = examples if enrolled is None else min(examples, float(enrolled))
            found[site] = (loss if math.isfinite(loss) else math.inf, weight)
        return found

    def _remaining_sums(self) -> Iterator[Vector]:
        for site in self.contributions.sites():
            if site not in self.departure.sites and site not in self.barred:
                yield self.contributions.running(site, "sum")

    def _guard_updates(self) -> Iterator[Vector]:
        sites = sorted(self.departure.sites - self.departure.bystanders)
        share = max(1, self.settings.guard_size // len(sites))
        for site in sites:
            kept = [round_ for round_, _, _ in self.contributions.updates(site)]
            chosen = set(kept[:: max(1, -(-len(kept) // share))])
            for round_, _, update in self.contributions.updates(site):
                if round_ in chosen:
                    yield update
