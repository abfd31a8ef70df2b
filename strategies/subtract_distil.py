"""Subtract the site's whole contribution, then distil the other knowledge back from the old model."""

from __future__ import annotations

from typing import Any, ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from pydantic import Field

from reconsent.config import Settings
from strategies import messages as msg
from strategies.members import RoundConfig
from strategies.needs import Needs
from strategies.one_shot import OneShot, OneShotSettings
from strategies.unlearning_strategy import Departure
from unlearning.ascent import weighted_contribution
from unlearning.parameters import ParameterLayout, Vector


class SubtractDistilSettings(OneShotSettings):
    """Settings of subtraction and distillation."""

    post_training: int = Field(
        default=0,
        ge=0,
        description="last rounds of the budget that train on the remaining sites' own targets instead",
    )


class SubtractDistil(OneShot):
    """Subtract the site's updates and distil from the old model (Wu et al., arXiv 2201.09441, 2022).

        θ' = θ_T − Σₜ pᵤᵗ Δᵤᵗ,   then   min_θ L(f_θ(x), f_{θ_T}(x))

    on data without labels. The subtraction ignores that later updates were computed where the site had taken
    the model, an error that grows with the rounds, and destroys the model on its own; distillation brings it
    back. The paper distils at the server, which here has no data: the remaining sites do so on their measured
    k-space, without using a target; the old model travels with the new one, so a round costs twice the bytes
    down. The teacher still knows the site's data, and can teach them again: look at the relearn gap.
    """

    name: ClassVar[str] = "subtract-distil"
    summary_line: ClassVar[str] = "subtract the site's updates, distil from the old model at the others"
    source: ClassVar[str] = (
        "Wu et al., Federated Unlearning with Knowledge Distillation, arXiv 2201.09441, 2022"
    )
    cost_line: ClassVar[str] = "the budget of rounds at the remaining sites, with twice the bytes down"
    settings_type: ClassVar[type[Settings]] = SubtractDistilSettings
    settings: SubtractDistilSettings

    def __init__(self, departure: Departure, settings: SubtractDistilSettings, **kwargs: Any) -> None:
        super().__init__(departure, settings, **kwargs)
        self._teacher: ArrayRecord | None = None
        told: RoundConfig = self.round_config
        self.round_config = lambda t: {**told(t), msg.TASK: msg.DISTIL} if self._distils(t) else told(t)

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        """The running sum of the site's updates."""
        del settings
        return Needs(contributions=True)

    def begin(self, grid: Grid, arrays: ArrayRecord) -> ArrayRecord:
        """Keep G as the teacher, and compute what is subtracted."""
        self._teacher = arrays
        return super().begin(grid, arrays)

    def displacement(self, parameters: Vector, layout: ParameterLayout) -> Vector:
        """−Σ p Δ of the withdrawn sites ``(P,)``."""
        del parameters, layout
        assert self.cache is not None  # noqa: S101 - checked
        return -weighted_contribution(self.cache, self.departure.contributors, kind="sum")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """The usual messages, with the teacher beside the model."""
        messages = super().configure_train(server_round, arrays, config, grid)
        if self._distils(server_round) and self._teacher is not None:
            for message in messages:
                message.content[msg.TEACHER] = self._teacher
        return messages

    def bytes_besides(self, server_round: int) -> int:
        """The teacher's."""
        return msg.payload_bytes(self._teacher) if self._distils(server_round) else 0

    def _distils(self, server_round: int) -> bool:
        return self.index(server_round) <= self.num_rounds - self.settings.post_training
