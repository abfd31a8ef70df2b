"""Projected ascent around the other sites' model, on cached contributions: PGA without the site."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from flwr.app import ArrayRecord
from pydantic import Field

from reconsent.config import Settings
from strategies import messages as msg
from strategies.needs import Needs
from strategies.one_shot import OneShot, OneShotSettings
from unlearning.contributions import ContributionCache
from unlearning.history import specific_of_last_round
from unlearning.parameters import ParameterLayout, Vector, norm


def reference_shift(cache: ContributionCache, sites: list[str]) -> Vector:
    """From the model to Halimi's reference w_ref, ``(P,)``.

    w_ref = (θ_T − pᵤ wᵤ)/(1 − pᵤ) = θ_T − pᵤ/(1 − pᵤ)(wᵤ − θ_T) with wᵤ the site's last local model (N θ_T −
    wᵤ)/(N − 1 for N equal sites): the average of the others' local models. wᵤ − θ_T = Δᵤ − Δ̄ of the round in
    which it took part last; if that is not round T, what came after it is left as it is.

    Raises
    ------
    ContributionError
        If an update of that round was not kept.
    """
    return -specific_of_last_round(cache, sites)


def distance_to_initial(reference: Vector, initial: ArrayRecord) -> float:
    """‖w_ref − w₀‖; the paper measures to random models, and the untrained one is the one that is at hand."""
    named = msg.named_arrays(initial)
    return norm(reference - ParameterLayout.of(named).flatten(named))


def projected(point: Vector, centre: Vector, radius: float) -> Vector:
    """``point`` if it is within ``radius`` of ``centre``, else the nearest point that is, ``(P,)``."""
    far = norm(point - centre)
    if far <= radius:
        return point
    result: Vector = centre + np.float32(radius / far) * (point - centre)
    return result


class CachedProjectedAscentSettings(OneShotSettings):
    """Settings of projected ascent on cached contributions."""

    steps: int = Field(default=5, ge=1, description="newest kept updates of the site that are gone back")
    step: float = Field(default=1.0, gt=0, description="length of a step over that of the update")
    radius: float = Field(
        default=1 / 3,
        gt=0,
        description="of the ball around the reference, over the distance from it to the untrained model",
    )


class CachedProjectedAscent(OneShot):
    """PGA (Halimi et al., arXiv 2207.05521, 2022) with the site's cached updates for its gradients.

        w ← w_ref,   w ← P(w − s Δᵤᵗ) for the newest updates, newest first,   P onto ‖w − w_ref‖ ≤ δ,

    since −Δᵤᵗ is a pseudo-gradient of the site's loss; w_ref is the mean of the other sites' last local
    models and δ a third of its distance to an untrained one. Then retain-only rounds. Nothing is asked of the
    site; for the paper's own ascent, at the site, see ``pga``.
    """

    name: ClassVar[str] = "pga-cached"
    summary_line: ClassVar[str] = (
        "projected ascent around the others' model on cached updates, then fine-tuning"
    )
    source: ClassVar[str] = "Halimi et al., arXiv 2207.05521, 2022, on cached updates"
    cost_line: ClassVar[str] = "the budget of rounds at the remaining sites"
    settings_type: ClassVar[type[Settings]] = CachedProjectedAscentSettings
    settings: CachedProjectedAscentSettings

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        """Single updates of all sites: the others' of the last round, to compute the reference."""
        del settings
        return Needs(contributions=True, history="all")

    def displacement(self, parameters: Vector, layout: ParameterLayout) -> Vector:
        """From G to the end of the ascent, ``(P,)``."""
        del layout
        assert self.cache is not None  # noqa: S101 - checked
        sites = self.departure.contributors
        reference = parameters + reference_shift(self.cache, sites)
        radius = self.settings.radius * distance_to_initial(reference, self.departure.initial())
        point = reference
        rounds = sorted({t for site in sites for t in self.cache.kept_rounds(site)}, reverse=True)
        for round_ in rounds[: self.settings.steps]:
            for site in sites:
                if round_ in self.cache.kept_rounds(site):
                    update = self.cache.update_of(site, round_)
                    point = projected(point - np.float32(self.settings.step) * update, reference, radius)
        return point - parameters
