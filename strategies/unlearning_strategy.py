"""What every method of unlearning has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from reconsent.config import Settings
from reconsent.errors import ContributionError
from strategies.averaging import ContributionAveraging
from strategies.needs import Needs
from strategies.outcomes import RoundOutcome
from unlearning.parameters import Vector

StrategyState = Mapping[str, float | int | Vector | list[str] | list[float] | None]
"""What of a method changes from round to round: numbers, names, and vectors ``(P,)``."""


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
    bystanders
        Those of ``sites`` that took part in no round: nothing of theirs is in the model.
    cooperating
        Those of ``sites`` that still answer, and compute their part of the unlearning on their own data.
    staying
        Those of ``sites`` that go on taking part: only some of their patients leave.
    models
        Round → the model after it, of those that are kept with the contributions up to it, the newest and
        the initial one (round 0) among them; for methods that go back.
    touched
        Rounds of ``models`` by whose lineage something of ``sites`` is in the model, whatever is left of
        their contributions.
    """

    sites: frozenset[str]
    trained_rounds: int
    budget_rounds: int
    learning_rate: float
    initial: Callable[[], ArrayRecord]
    bystanders: frozenset[str] = frozenset()
    cooperating: frozenset[str] = frozenset()
    staying: frozenset[str] = frozenset()
    models: Mapping[int, Callable[[], ArrayRecord]] = field(default_factory=dict)
    touched: frozenset[int] = frozenset()

    @property
    def contributors(self) -> list[str]:
        """Those of ``sites`` that something of is in the model, by name."""
        return sorted(self.sites - self.bystanders)


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
    source: ClassVar[str]
    """Whose method it is, and where it was published."""
    cost_line: ClassVar[str]
    """What it asks of the sites, in one line."""
    claim_level: ClassVar[str] = "empirical"
    """The strongest claim a certificate may make of it."""
    settings_type: ClassVar[type[Settings]]
    restarts: ClassVar[bool] = False
    """Whether it begins from the initial model, so that contributions so far describe another path."""
    plans: ClassVar[bool] = False
    """Whether :meth:`begin` reads what beginning anew takes away: it is then called once, and what it found
    is part of :meth:`state`."""
    changing: ClassVar[tuple[str, ...]] = ()
    """Attributes that change after :meth:`begin`, or that it would compute otherwise once rounds have run."""

    kind = "retain"

    def __init__(self, departure: Departure, settings: Settings, **kwargs: Any) -> None:
        gone = departure.sites - departure.staying
        super().__init__(**{**kwargs, "barred": gone | frozenset(kwargs.get("barred", ()))})
        self.departure = departure
        self._first_round = 1
        self.settings = settings

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        """What must have been kept, or must still answer, for these settings."""
        del settings
        return Needs()

    def check(self) -> None:
        """Refuse to begin without what the method needs; asks no site and changes nothing.

        Raises
        ------
        ContributionError
            If contributions or models were not kept, or a leaving site does not cooperate; or if it would
            take a site's contribution for that of the patients who leave it.
        """
        problems = self.needs(self.settings).missing_in(self.cache, self.departure)
        if problems:
            raise ContributionError(f"{self.name} cannot begin: {' '.join(problems)}")

    @property
    def num_rounds(self) -> int:
        """How many rounds the method will run."""
        return self.departure.budget_rounds

    @property
    def planned(self) -> bool:
        """:attr:`plans`, with these settings."""
        return self.plans

    @property
    def changing_names(self) -> tuple[str, ...]:
        """:attr:`changing`, with these settings."""
        return self.changing

    @property
    def start_round(self) -> int | None:
        """The round whose model it goes back to; ``None`` if it begins from G, or from the initial model."""
        return None

    def index(self, server_round: int) -> int:
        """Number of the round within the unlearning, from 1."""
        return server_round - self._first_round + 1

    def state(self) -> StrategyState:
        """What another instance needs to go on after the last round, having begun from the same model."""
        found = {name: getattr(self, name) for name in self.changing_names}
        return {name: v.copy() if isinstance(v, np.ndarray) else v for name, v in found.items()}

    def resume(self, state: StrategyState) -> None:
        """Go on where the instance stood that ``state`` came from; to be called after :meth:`begin`."""
        for name in self.changing_names:
            setattr(self, name, state[name])

    def rounds(
        self, grid: Grid, arrays: ArrayRecord, num_rounds: int, *, first_round: int = 1, done: int = 0
    ) -> Iterator[RoundOutcome]:
        """As for ContributionAveraging; schedules count from ``first_round``.

        With ``done`` rounds behind it (of an earlier instance, see :meth:`resume`) it runs the rest of
        ``num_rounds``, from the model ``arrays`` after them.
        """
        self._first_round = first_round
        return super().rounds(grid, arrays, num_rounds - done, first_round=first_round + done)
