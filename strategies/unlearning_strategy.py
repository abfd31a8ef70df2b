"""What every method of unlearning has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from reconsent.config import Settings
from strategies.averaging import ContributionAveraging, RoundOutcome


@dataclass(frozen=True, slots=True)
class Departure:
    """Who leaves, and what the method may know of the training so far.

    Attributes
    ----------
    sites
        The withdrawn sites.
    trained_rounds
        Rounds of training up to now.
    budget_rounds
        Rounds the method may use.
    learning_rate
        The sites' learning rate in the last round of training.
    initial
        The model training began with; for methods that begin anew.
    """

    sites: frozenset[str]
    trained_rounds: int
    budget_rounds: int
    learning_rate: float
    initial: Callable[[], ArrayRecord]


class UnlearningStrategy(ContributionAveraging):
    """A method of unlearning: a strategy whose rounds ask the remaining sites only.

    ``start`` (or :meth:`rounds`) is given the model G and ends with G_U. It never sees data, the forget
    set, or the oracle; all it has is the contribution cache and what the remaining sites answer.

    Parameters
    ----------
    departure
        Who leaves, and what of the training may be known.
    settings
        The method's own settings, an instance of its ``Settings``.
    **kwargs
        As for :class:`~strategies.averaging.ContributionAveraging`.
    """

    name: ClassVar[str]
    """As in configuration files."""
    summary_line: ClassVar[str]
    """What it does, in one line."""
    claim_level: ClassVar[str] = "empirical"
    """The strongest claim a certificate may make of it."""
    settings_type: ClassVar[type[Settings]]
    restarts: ClassVar[bool] = False
    """Whether it begins from the initial model, so that contributions so far describe another path."""

    kind = "retain"

    def __init__(self, departure: Departure, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "barred": departure.sites | frozenset(kwargs.get("barred", ()))})
        self.departure = departure
        self._first_round = 1
        self.settings = settings

    @property
    def num_rounds(self) -> int:
        """How many rounds the method will run."""
        return self.departure.budget_rounds

    def index(self, server_round: int) -> int:
        """Number of the round within the unlearning, from 1."""
        return server_round - self._first_round + 1

    def rounds(
        self, grid: Grid, arrays: ArrayRecord, num_rounds: int, *, first_round: int = 1
    ) -> Iterator[RoundOutcome]:
        """As for ContributionAveraging; schedules count from ``first_round``."""
        self._first_round = first_round
        return super().rounds(grid, arrays, num_rounds, first_round=first_round)
