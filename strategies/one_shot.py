"""Methods that move the model once, by what the server knows, and let the remaining sites repair it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from flwr.app import ArrayRecord
from flwr.serverapp import Grid
from pydantic import Field

from strategies import messages as msg
from strategies.retain_fine_tuning import RetainFineTuning, RetainFineTuningSettings
from strategies.unlearning_strategy import Departure
from unlearning.parameters import ParameterLayout, Vector, norm


class OneShotSettings(RetainFineTuningSettings):
    """Settings of methods that move the model once."""

    repair: bool = Field(
        default=True,
        description="retain-only rounds afterwards; without them no site is asked for anything",
    )


class OneShot(RetainFineTuning):
    """Moves the model once, by :meth:`displacement`, before the first retain-only round.

    With ``repair = false`` there are no rounds, and the move is all.
    """

    changing: ClassVar[tuple[str, ...]] = RetainFineTuning.changing
    settings: OneShotSettings

    def __init__(self, departure: Departure, settings: OneShotSettings, **kwargs: Any) -> None:
        super().__init__(departure, settings, **kwargs)
        self._move: Vector | None = None

    @abstractmethod
    def displacement(self, parameters: Vector, layout: ParameterLayout) -> Vector:
        """By what to move the model ``parameters`` ``(P,)``, ``(P,)``."""

    @property
    def num_rounds(self) -> int:
        """The budget, or none without repair."""
        return self.departure.budget_rounds if self.settings.repair else 0

    def begin(self, grid: Grid, arrays: ArrayRecord) -> ArrayRecord:
        """Compute the move.

        Raises
        ------
        ContributionError
            If what it is computed of was not kept.
        """
        del grid
        self.check()
        named = msg.named_arrays(arrays)
        layout = ParameterLayout.of(named)
        self._move = self.displacement(layout.flatten(named), layout)
        return arrays

    def prepare(self, server_round: int, parameters: Vector) -> tuple[Vector, dict[str, float]]:
        """Move before the first round."""
        if self.index(server_round) != 1 or self._move is None:
            return parameters, {}
        return parameters + self._move, {"step-norm": norm(self._move)}

    def finish(self, arrays: ArrayRecord) -> ArrayRecord:
        """Move, if there were no rounds."""
        if self.settings.repair or self._move is None:
            return arrays
        named = msg.named_arrays(arrays)
        layout = ParameterLayout.of(named)
        return msg.array_record(layout.unflatten(layout.flatten(named) + self._move, named))
