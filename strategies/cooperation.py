"""Rounds in which a leaving site still computes its part, on its own data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from pydantic import Field

from reconsent.config import Settings
from strategies import messages as msg
from strategies.needs import Needs
from strategies.outcomes import RoundOutcome
from strategies.retain_fine_tuning import RetainFineTuning, RetainFineTuningSettings
from strategies.screening import Screened
from strategies.unlearning_strategy import Departure
from unlearning.parameters import Vector, norm


class CooperatingSettings(RetainFineTuningSettings):
    """Settings of methods that ask the leaving site as well."""

    forget_weight: float = Field(
        default=1.0, gt=0, description="weight of the leaving sites' part beside the remaining sites' average"
    )
    forget_rate: float = Field(
        default=1.0, gt=0, description="learning rate at the leaving sites over that at the others"
    )
    gradient_clip: float | None = Field(
        default=0.5, gt=0, description="largest gradient norm at the leaving sites; empty: as configured"
    )


class Cooperating(RetainFineTuning):
    """A method whose leaving sites compute a part on their own data before they go.

    Their updates are screened like any other and added to the average of the remaining sites,
    θ ← θ + Σ pᵢ/(1 − pᵤ) Δᵢ + w Σ nᵤ/Σ nᵤ Δᵤ, but they are no contributions: they are neither cached nor part
    of a lineage. A round in which a leaving site does not answer fails; it can be run again.

    Where only some patients leave and their site stays, it has both parts: the one on their data and, on
    those of its other patients, that of a remaining site. A node has one task at a time, so such rounds take
    turns; the last is the remaining sites'.
    """

    settings: CooperatingSettings

    def __init__(self, departure: Departure, settings: CooperatingSettings, **kwargs: Any) -> None:
        super().__init__(departure, settings, **kwargs)
        self._forgotten: dict[str, Screened] = {}
        self._round = 0
        self._leavers_asked = False
        # They are barred from everything but this.
        barred_now = self.barred_now
        self.barred_now = lambda: frozenset(barred_now()) - (departure.cooperating - departure.staying)

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        """The leaving sites."""
        del settings
        return Needs(cooperation=True)

    # ---- what a method says ---------------------------------------------------------------------------

    def asks_leavers(self, server_round: int) -> bool:
        """Whether the leaving sites have a part in this round."""
        del server_round
        return True

    def asks_others(self, server_round: int) -> bool:
        """Whether the remaining sites have a part in this round."""
        del server_round
        return True

    def told_leavers(self, server_round: int) -> dict[str, int | float | str | bool]:
        """What the leaving sites are told beside the usual."""
        del server_round
        return {}

    # ---- and what follows from it ---------------------------------------------------------------------

    def turns(self, server_round: int) -> tuple[bool, bool]:
        """Whether the remaining sites, and the leaving ones, have a part in this round after all."""
        others, leavers = self.asks_others(server_round), self.asks_leavers(server_round)
        if self.departure.staying and others and leavers:
            theirs = (self.num_rounds - self.index(server_round)) % 2 == 1
            return not theirs, theirs
        return others, leavers

    @property
    def num_rounds(self) -> int:
        """The budget; where two parts take turns two at least, one for each."""
        budget = super().num_rounds
        return max(2, budget) if self.departure.staying else budget

    def begin(self, grid: Grid, arrays: ArrayRecord) -> ArrayRecord:
        """Check that the leaving sites cooperate; whether they are online shows in the first round."""
        del grid
        self.check()
        return arrays

    def leavers(self, grid: Grid) -> dict[int, str]:
        """Node id → site of the leaving sites that still answer."""
        return {n: site for n, site in self.members(grid).items() if site in self.departure.cooperating}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Messages to whoever has a part in this round."""
        self._begin(arrays)
        self._forgotten = {}
        messages: list[Message] = []
        asks_others, self._leavers_asked = self.turns(server_round)
        if asks_others:
            messages = super().configure_train(server_round, arrays, config, grid)
        asked = dict(self._asked) if messages else {}
        if self._leavers_asked:
            fixed = cast("dict[str, int | float | str | bool]", dict(config))
            usual = {**fixed, **self.round_config(server_round)}
            usual = {k: v for k, v in usual.items() if k not in (msg.SHARE, msg.EVALUATE_INCOMING)}
            told = {
                **usual,
                msg.LEARNING_RATE: self.settings.forget_rate * float(usual[msg.LEARNING_RATE]),
                **self.told_leavers(server_round),
            }
            if self.departure.staying:
                told[msg.FORGET_SET] = True
            if self.settings.gradient_clip is not None:
                told.setdefault(msg.GRADIENT_CLIP, self.settings.gradient_clip)
            nodes = self.leavers(grid)
            messages += self._messages_to(nodes, msg.TRAIN, server_round, arrays, told)
            asked |= nodes
        self._asked = asked
        return messages

    def accept(self, server_round: int, site: str, screened: Screened) -> Screened | None:
        """Keep a leaving site's part by itself."""
        if site not in self.departure.sites or not self._leavers_asked:
            return super().accept(server_round, site, screened)
        self._forgotten[site] = screened
        return None

    def enough(self, weights: Mapping[str, float]) -> bool:
        """Enough of the remaining sites, and every leaving one, of those that have a part."""
        asks_others, asks_leavers = self.turns(self._round)
        others = not asks_others or super().enough(weights)
        wanted = set(self.departure.contributors) if asks_leavers else set()
        return others and wanted <= set(self._forgotten)

    def _too_few(self, server_round: int) -> str:
        silent = sorted(set(self.departure.contributors) - set(self._forgotten))
        said = super()._too_few(server_round)
        if self._leavers_asked and silent:
            return f"{said} Of the leaving sites no part came from {', '.join(silent)}."
        return said

    def combine(self, server_round: int, start: Vector, update: Vector) -> Vector:
        """The others' average with its momentum, and the leaving sites' part."""
        if self.turns(server_round)[0]:
            update = super().combine(server_round, start, update)
        total = sum(part.examples for part in self._forgotten.values())
        for site in sorted(self._forgotten):
            part = self._forgotten[site]
            weight = self.settings.forget_weight * part.examples / total
            update = update + np.float32(weight) * part.update
        return update

    def run_round(self, grid: Grid, server_round: int, arrays: ArrayRecord) -> RoundOutcome:
        """One round, noting the size of the leaving sites' part."""
        self._round = server_round
        outcome = super().run_round(grid, server_round, arrays)
        if not self._forgotten:
            return outcome
        sizes = [norm(part.update) for part in self._forgotten.values()]
        return replace(outcome, notes={**outcome.notes, "forget-norm": max(sizes)})
