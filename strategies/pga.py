"""PGA: projected gradient ascent at the leaving site, then fine-tuning at the others."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from flwr.app import ArrayRecord
from flwr.serverapp import Grid
from pydantic import Field

from reconsent.config import Settings
from strategies import messages as msg
from strategies.cooperation import Cooperating, CooperatingSettings
from strategies.needs import Needs
from strategies.projected_ascent import distance_to_initial, reference_shift
from strategies.unlearning_strategy import Departure
from unlearning.parameters import ParameterLayout, Vector


class ProjectedAscentSettings(CooperatingSettings):
    """Settings of projected gradient ascent at the leaving site."""

    centre: Literal["others", "model"] = Field(
        default="others",
        description="the ball is around the mean of the others' last local models, or around the model",
    )
    radius: float = Field(
        default=1 / 3,
        gt=0,
        description="of the ball, over the distance from its centre to the untrained model",
    )
    stop_ratio: float | None = Field(
        default=2.0,
        gt=1,
        description="end the ascent when a batch's loss exceeds this times the first one's; empty: do not",
    )
    passes: int = Field(
        default=5, ge=1, description="local passes of the ascent, times those of the training"
    )
    ascent_momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD in the ascent")
    gradient_clip: float | None = Field(
        default=5.0, gt=0, description="largest gradient norm in the ascent; empty: as configured"
    )


class ProjectedAscent(Cooperating):
    """PGA (Halimi et al., arXiv 2207.05521, 2022): ascent by the leaving site within a ball.

        max J(w; D_f)  subject to ‖w − w_ref‖ ≤ δ,   w ← P(w + η ∇J(w)),

    from w_ref = (θ_T − pᵤ wᵤ)/(1 − pᵤ), the mean of the other sites' last local models, δ a third of the
    distance d from there to an untrained model (the paper's words; its public code takes δ² = mean d² / 3,
    which is δ = 0.58 d: ``radius = 0.58``). The paper ends the ascent when the accuracy on the site's
    validation set falls below a threshold; here, where images are no classes, when the loss of a batch has
    doubled. Then the remaining sites train on. One round is the leaving site's, the rest of the budget the
    others'.
    """

    name: ClassVar[str] = "pga"
    summary_line: ClassVar[str] = (
        "projected gradient ascent at the leaving site, then retain-only fine-tuning"
    )
    source: ClassVar[str] = (
        "Halimi et al., Federated Unlearning: How to Efficiently Erase a Client, arXiv 2207.05521, 2022"
    )
    cost_line: ClassVar[str] = (
        "one round at the leaving site (several local passes), the rest of the budget at the others"
    )
    settings_type: ClassVar[type[Settings]] = ProjectedAscentSettings
    settings: ProjectedAscentSettings

    def __init__(self, departure: Departure, settings: ProjectedAscentSettings, **kwargs: Any) -> None:
        super().__init__(departure, settings, **kwargs)
        self._shift: Vector | None = None
        self._radius = 0.0

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        """The leaving sites, and for the reference the updates of the last round."""
        assert isinstance(settings, ProjectedAscentSettings)  # noqa: S101 - checked by the registry
        if settings.centre == "model":
            return Needs(cooperation=True)
        return Needs(cooperation=True, contributions=True, history="all")

    @property
    def num_rounds(self) -> int:
        """The budget, but two at least: one to climb, one to repair."""
        return max(2, self.departure.budget_rounds)

    def asks_leavers(self, server_round: int) -> bool:
        """In the first round."""
        return self.index(server_round) == 1

    def asks_others(self, server_round: int) -> bool:
        """In all but the first round."""
        return self.index(server_round) != 1

    def told_leavers(self, server_round: int) -> dict[str, int | float | str | bool]:
        """To climb within the ball."""
        del server_round
        s = self.settings
        told: dict[str, int | float | str | bool] = {
            msg.TASK: msg.ASCEND,
            msg.MOMENTUM: s.ascent_momentum,
            msg.RADIUS: self._radius,
            msg.EFFORT: s.passes,
        }
        return told if s.stop_ratio is None else {**told, msg.STOP_RATIO: s.stop_ratio}

    def begin(self, grid: Grid, arrays: ArrayRecord) -> ArrayRecord:
        """Compute the ball."""
        super().begin(grid, arrays)
        named = msg.named_arrays(arrays)
        reference = ParameterLayout.of(named).flatten(named)
        if self.settings.centre == "others":
            assert self.cache is not None  # noqa: S101 - checked
            self._shift = reference_shift(self.cache, self.departure.contributors)
            reference = reference + self._shift
        distance = distance_to_initial(reference, self.departure.initial())
        self._radius = self.settings.radius * distance
        return arrays

    def prepare(self, server_round: int, parameters: Vector) -> tuple[Vector, dict[str, float]]:
        """Go to the centre of the ball before the ascent."""
        if not self.asks_leavers(server_round):
            return parameters, {}
        notes = {"radius": self._radius}
        return (parameters, notes) if self._shift is None else (parameters + self._shift, notes)
