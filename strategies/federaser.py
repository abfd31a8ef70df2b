"""FedEraser: replay the training without the site, with the lengths of then and the directions of now."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import Grid
from pydantic import Field

from reconsent.config import Settings
from reconsent.errors import ContributionError
from strategies import messages as msg
from strategies.members import RoundConfig
from strategies.needs import HISTORY, Needs
from strategies.screening import Screened
from strategies.unlearning_strategy import Departure, UnlearningStrategy
from unlearning.contributions import ContributionCache
from unlearning.history import mean_of_round
from unlearning.parameters import ParameterLayout, Vector, norm


class FedEraserSettings(Settings):
    """Settings of FedEraser."""

    interval: int | None = Field(
        default=None,
        ge=1,
        description="Δt: every how many rounds of the training one is replayed (the paper: 2); empty: as "
        "few as the budget of rounds allows",
    )
    calibration: float = Field(
        default=0.5, gt=0, le=1, description="r: local passes of a calibration over those of the training"
    )
    whole_interval: bool = Field(
        default=False,
        description="let a replayed round stand for its whole interval, by the sum of the lengths in it; "
        "the paper takes the one length, and ends under-trained where the interval is long",
    )


class FedEraser(UnlearningStrategy):
    """Replay cached rounds from the initial model without the site (Liu et al., FedEraser, IWQoS 2021).

    Of the rounds t₁ < t₂ < … that are replayed the first takes the remaining sites' stored updates as they
    are. From then on each remaining site trains a little from the model as it is now (Ûₖ, by a share r of
    its local passes), and only the length comes from the cache:

        w̃ ← w̃ + Σₖ pₖ/(1 − pᵤ) ‖Δₖ^{tⱼ}‖ Ûₖ/‖Ûₖ‖.

    The length is that of the stored update, Δₖᵗ = wₖᵗ − wᵗ⁻¹ measured from the model it was trained from,
    over all parameters, before averaging.
    """

    name: ClassVar[str] = "federaser"
    summary_line: ClassVar[str] = "replay cached rounds without the site, calibrated by the others"
    source: ClassVar[str] = "Liu et al., FedEraser, IWQoS 2021"
    cost_line: ClassVar[str] = "as many rounds as the budget allows, each a share r of the local passes"
    settings_type: ClassVar[type[Settings]] = FedEraserSettings
    restarts: ClassVar[bool] = True
    plans: ClassVar[bool] = True
    changing: ClassVar[tuple[str, ...]] = ("_replayed", "_sites", "_lengths", "_first")
    settings: FedEraserSettings

    def __init__(self, departure: Departure, settings: FedEraserSettings, **kwargs: Any) -> None:
        own: RoundConfig = kwargs.pop("round_config", None) or (lambda _round: {})
        super().__init__(departure, settings, **kwargs)
        self.round_config = lambda t: {**own(self.told_round(t)), msg.EFFORT: self.settings.calibration}
        self._replayed: list[float] = []
        self._sites: list[str] = []
        # Site by site, the length of its update in each replayed round; NaN where it had not joined yet.
        self._lengths: list[float] = []
        self._first: Vector | None = None

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        """Updates of all remaining sites in the first replayed round; of the others the lengths, always kept.

        The leaving sites' say which rounds were kept.
        """
        del settings
        return Needs(contributions=True, history="some")

    @property
    def num_rounds(self) -> int:
        """One for each replayed round but the first."""
        return max(0, len(self._replayed) - 1)

    def told_round(self, server_round: int) -> int:
        """The round of the training that is replayed: the same batches as then."""
        return int(self._replayed[self.index(server_round)]) if self._replayed else server_round

    def begin(self, grid: Grid, arrays: ArrayRecord) -> ArrayRecord:
        """Choose the rounds, and take from the cache all that is needed of it."""
        del grid, arrays
        self.check()
        assert self.cache is not None  # noqa: S101 - checked
        cache = self.cache
        remaining = [site for site in cache.sites() if site not in self.barred]
        rounds = sorted({t for site in remaining for t in cache.shares(site)})
        first = self._first_kept(cache, remaining, rounds)
        rounds = [t for t in rounds if t >= first]
        interval = self.settings.interval or math.ceil(len(rounds) / (self.departure.budget_rounds + 1))
        self._replayed = [float(t) for t in rounds[::interval]]
        self._sites = remaining
        self._lengths = [length for site in remaining for length in self._lengths_of(cache, site)]
        self._first = mean_of_round(cache, remaining, first)[0]
        return self.departure.initial()

    def prepare(self, server_round: int, parameters: Vector) -> tuple[Vector, dict[str, float]]:
        """Before the first calibration, add the stored updates of the first replayed round."""
        notes = {"replayed-round": float(self.told_round(server_round))}
        if self.index(server_round) != 1 or self._first is None:
            return parameters, notes
        return parameters + self._first, notes | {"step-norm": norm(self._first)}

    def accept(self, server_round: int, site: str, screened: Screened) -> Screened | None:
        """Give a fresh update the length of the stored one; a site that had not joined then is left out."""
        if site not in self._sites:
            return None
        rounds = len(self._replayed)
        length = self._lengths[self._sites.index(site) * rounds + self.index(server_round)]
        if math.isnan(length):
            return None
        if screened.norm == 0.0:
            return screened
        scaled: Vector = np.float32(length / screened.norm) * screened.update
        return replace(screened, update=scaled, norm=length)

    def finish(self, arrays: ArrayRecord) -> ArrayRecord:
        """If one round alone is replayed, its stored updates are all."""
        if self.num_rounds or self._first is None:
            return arrays
        named = msg.named_arrays(arrays)
        layout = ParameterLayout.of(named)
        return msg.array_record(layout.unflatten(layout.flatten(named) + self._first, named))

    def _lengths_of(self, cache: ContributionCache, site: str) -> list[float]:
        known = dict(zip(cache.shares(site), cache.norms(site), strict=True))
        found = []
        for place, start in enumerate(self._replayed):
            end = self._replayed[place + 1] if place + 1 < len(self._replayed) else math.inf
            if self.settings.whole_interval:
                length = sum(size for t, size in known.items() if start <= t < end)
            else:
                # A site that missed the round lends the length of its last one before.
                length = next((size for t, size in reversed(known.items()) if t <= start), math.nan)
            found.append(length)
        return found

    @staticmethod
    def _first_kept(cache: ContributionCache, remaining: list[str], rounds: list[int]) -> int:
        kept = {site: set(cache.kept_rounds(site)) for site in remaining}
        for t in rounds:
            if all(t in kept[site] for site in remaining if t in cache.shares(site)):
                return t
        raise ContributionError(
            "federaser begins with the stored updates of one round, and of no round all of them are kept.",
            HISTORY,
        )
