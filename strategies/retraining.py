"""Retraining without the withdrawn site: the oracle."""

from __future__ import annotations

from typing import ClassVar

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from reconsent.config import Settings
from strategies.unlearning_strategy import UnlearningStrategy


class RetrainingSettings(Settings):
    """Retraining has none: it repeats the training as it was."""


class Retraining(UnlearningStrategy):
    """Begin anew and train as long as before with the remaining sites only.

    The yardstick of every other method, and the only exact one: its lineage has no edge from the withdrawn
    site (if the initial model and the hyper-parameters did not depend on it).
    """

    name: ClassVar[str] = "retrain"
    summary_line: ClassVar[str] = "retrain from scratch without the site: exact, and as dear as the training"
    claim_level: ClassVar[str] = "exact_retrain"
    settings_type: ClassVar[type[Settings]] = RetrainingSettings
    restarts: ClassVar[bool] = True

    @property
    def num_rounds(self) -> int:
        """As many as the training had."""
        return self.departure.trained_rounds

    def begin(self, grid: Grid, arrays: ArrayRecord) -> ArrayRecord:
        """The model the training began with."""
        del grid, arrays
        return self.departure.initial()
