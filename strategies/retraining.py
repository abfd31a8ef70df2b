"""Retraining without the withdrawn site: the oracle."""

from __future__ import annotations

from typing import Any, ClassVar

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from reconsent.config import Settings
from strategies.members import RoundConfig
from strategies.unlearning_strategy import Departure, UnlearningStrategy


class RetrainingSettings(Settings):
    """Retraining has none: it repeats the training as it was."""


class Retraining(UnlearningStrategy):
    """Begin anew and train as long as before with the remaining sites only.

    The yardstick of every other method, and the only exact one: its lineage has no edge from the withdrawn
    site (if the initial model and the hyper-parameters did not depend on it).
    """

    name: ClassVar[str] = "retrain"
    summary_line: ClassVar[str] = "retrain from scratch without the site: exact, and as dear as the training"
    source: ClassVar[str] = "the oracle of every paper"
    cost_line: ClassVar[str] = "all rounds of the training, at the remaining sites"
    claim_level: ClassVar[str] = "exact_retrain"
    settings_type: ClassVar[type[Settings]] = RetrainingSettings
    restarts: ClassVar[bool] = True

    def __init__(self, departure: Departure, settings: Settings, **kwargs: Any) -> None:
        own: RoundConfig = kwargs.pop("round_config", None) or (lambda _round: {})
        super().__init__(departure, settings, **kwargs)
        self.round_config = lambda t: own(self.index(t))

    @property
    def num_rounds(self) -> int:
        """As many as the training had."""
        return self.departure.trained_rounds

    def told_round(self, server_round: int) -> int:
        """That of the training: with the same batches as then, only the withdrawn site is missing."""
        return self.index(server_round)

    def begin(self, grid: Grid, arrays: ArrayRecord) -> ArrayRecord:
        """The model the training began with."""
        del grid, arrays
        return self.departure.initial()
