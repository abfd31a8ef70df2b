"""What every method of unlearning has in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from reconsent.config import Settings
from strategies.averaging import ContributionAveraging


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

    kind = "retain"

    def __init__(self, departure: Departure, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "barred": departure.sites | frozenset(kwargs.get("barred", ()))})
        self.departure = departure
        self.settings = settings

    @property
    def num_rounds(self) -> int:
        """How many rounds the method will run."""
        return self.departure.budget_rounds

    def begin(self, grid: Grid, arrays: ArrayRecord) -> ArrayRecord:
        """Make ready and return the model to begin the rounds with; ``arrays`` are G.

        Raises
        ------
        ContributionError
            If something the method needs was not kept.
        """
        del grid
        return arrays

    def finish(self, arrays: ArrayRecord) -> tuple[ArrayRecord, Mapping[str, float]]:
        """Last change to the model after the rounds, and notes for the record."""
        return arrays, {}
