"""What a simulation measures after a withdrawal: the table ``[assessment]``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from reconsent.settings import Settings


class AssessmentConfig(Settings):
    """What a simulation measures after a withdrawal."""

    oracle: bool = Field(default=True, description="retrain without the withdrawn sites, to compare with")
    relearn_steps: tuple[int, ...] = Field(
        default=(4, 8, 16, 32), description="optimiser steps after which relearning is measured"
    )
    relearn_patients: int = Field(default=4, ge=1, description="fresh patients of the withdrawn organ")
    relearn_learning_rate: float = Field(default=1e-3, gt=0, description="of the relearning")
    function_distance: bool = Field(
        default=True, description="compare the models' images with the oracle's pixel by pixel"
    )
    membership: Literal["none", "loss", "lira"] = Field(
        default="loss", description="attack on the withdrawn site's patients; lira trains shadow-models first"
    )
    shadow_models: int = Field(
        default=8,
        ge=4,
        description="trainings for lira, an even number; each as dear as the oracle",
    )
    hallucination: bool = Field(
        default=True, description="sort errors by what the measurements could have shown"
    )
    alignment: bool = Field(
        default=True, description="measure what is left of the withdrawn site's directions in the parameters"
    )
    noise_floor_seeds: int = Field(
        default=0, ge=0, description="further oracles with other seeds; each as dear as the first"
    )
    continuation: bool = Field(
        default=False, description="train on without the site, half as long again as the unlearning took"
    )
    query_model: bool = Field(
        default=False, description="train a model on the withdrawn site alone, for Liu and Tsaftaris' rho"
    )

    @field_validator("relearn_steps")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 1:
            raise ValueError("give at least one number of steps, each 1 or more")
        return value

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.shadow_models % 2:
            raise ValueError(
                f"shadow-models is {self.shadow_models}; an even number lets each patient be in half of them"
            )
        return self
