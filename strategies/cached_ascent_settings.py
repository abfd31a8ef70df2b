"""Settings of cached ascent."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from strategies.retain_fine_tuning import RetainFineTuningSettings


class CachedAscentSettings(RetainFineTuningSettings):
    """Settings of cached ascent; lengths are in units of R, the size of one update, or as ``unit`` says."""

    rate: float = Field(
        default=1.5, gt=0, description="sites' learning rate in the first round, over that of the training"
    )
    final_rate: float | None = Field(
        default=0.25, gt=0, description="the same in the last round; empty: as rate"
    )
    alpha: float | None = Field(
        default=1.85,
        ge=0,
        description="length of all ascent steps together, in what `unit` says; empty: found by probing the "
        "remaining sites' loss, see reach",
    )
    reach: float = Field(
        default=0.62,
        gt=0,
        lt=1,
        description="if alpha is empty: the share of the way from the trained back to the untrained model "
        "that the remaining sites' loss would go if the whole ascent were taken at once",
    )
    ascent_rounds: int | None = Field(
        default=None,
        ge=1,
        description="equal steps it is taken in, one before each of the first rounds; 1: one-shot; "
        "empty: half of the rounds",
    )
    final_alpha: float = Field(default=0.0, ge=0, description="length of a last step after all rounds")
    direction: Literal["sum", "specific"] = Field(
        default="specific", description="the site's updates, or what they added beyond the other sites'"
    )
    unit: Literal["update", "contribution", "geometric"] = Field(
        default="update",
        description="what lengths are in units of: R, the length of the site's whole contribution, or the "
        "geometric mean of the two",
    )
    damping: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="a of the damped specific contribution, computed anew from the single updates of all "
        "sites; empty: as it was damped in the cache (contributions.damping)",
    )
    rollback: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="go back first, to the newest kept model of at most this share of the rounds, and ascend "
        "on what the site had contributed by then; empty: stay at the trained model",
    )
    recency: float = Field(default=1.0, gt=0, le=1, description="weight of a round over that of the next")
    orthogonalise: bool = Field(
        default=False, description="project the direction off the remaining sites' cached contributions"
    )
    project_fresh: bool = Field(
        default=False,
        description="take each step with its round's retain updates at hand, projected off their span",
    )
    guard: Literal["none", "span", "return"] = Field(
        default="none",
        description="hold back reversion: project retain updates off the span of the site's cached "
        "updates (span), or take out only what leads back to the original model (return)",
    )
    guard_size: int = Field(default=40, ge=1, description="cached updates that make the span")
    norm_window: int = Field(default=10, ge=1, description="last updates whose median norm is R")
    trust_radius: float = Field(
        default=10.0, gt=0, description="longest sum of all steps, in what `unit` says"
    )
    tolerance: float | None = Field(
        default=0.5,
        ge=0,
        description="rise of the remaining sites' loss after a step's round, as a share of the loss of the "
        "model it began from, above which it is taken back and halved; empty: never",
    )

    @model_validator(mode="after")
    def _direction_has_what_it_weighs(self) -> Self:
        if self.recency < 1 and self.direction == "specific":
            raise ValueError(
                "a recency below 1 weighs single updates, and of the specific contribution only the running "
                "sum is kept; use direction = 'sum' with it"
            )
        if self.damping is not None and self.direction == "sum":
            raise ValueError(
                "damping is that of the specific contribution; use direction = 'specific' with it"
            )
        return self
