"""NoT: negate the first layer's weights, and train on with the others."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from reconsent.config import Settings
from reconsent.errors import ConfigError
from strategies.one_shot import OneShot, OneShotSettings
from unlearning.parameters import ParameterLayout, Vector


class WeightNegationSettings(OneShotSettings):
    """Settings of weight negation."""

    layers: str | None = Field(
        default=None,
        description="names of the arrays to negate, separated by commas; empty: the first with two or more "
        "dimensions, or the first of all",
    )


class WeightNegation(OneShot):
    """Negate the weights of the first layer, then train on with the remaining sites.

    NoT (Khalil et al., CVPR 2025): θ_ℓ ← −θ_ℓ for the chosen layers ℓ breaks the adaptation of layers to
    each other, and retain-only rounds rebuild it from the retain data alone. Needs nothing that is kept. It
    is not directed towards the oracle: everything is disturbed alike.

    On VarNet the first array belongs to the network that estimates the coils' sensitivities, not to the
    reconstruction itself: name the first layers of the cascades in ``layers`` there.
    """

    name: ClassVar[str] = "weight-negation"
    summary_line: ClassVar[str] = "NoT: negate the first layer, then retain-only fine-tuning"
    source: ClassVar[str] = "Khalil et al., NoT, CVPR 2025"
    cost_line: ClassVar[str] = "the budget of rounds at the remaining sites"
    settings_type: ClassVar[type[Settings]] = WeightNegationSettings
    settings: WeightNegationSettings

    def displacement(self, parameters: Vector, layout: ParameterLayout) -> Vector:
        """−2 θ in the chosen layers, 0 elsewhere, ``(P,)``.

        Raises
        ------
        ConfigError
            If the model has no such array.
        """
        chosen = self._chosen(layout)
        move = np.zeros_like(parameters)
        offset = 0
        for name, shape, dtype in layout.entries:
            if np.dtype(dtype).kind != "f":
                continue
            count = int(np.prod(shape, dtype=np.int64))
            if name in chosen:
                move[offset : offset + count] = -2 * parameters[offset : offset + count]
            offset += count
        return move

    def _chosen(self, layout: ParameterLayout) -> set[str]:
        floats = [(name, shape) for name, shape, dtype in layout.entries if np.dtype(dtype).kind == "f"]
        wanted = {name.strip() for name in (self.settings.layers or "").split(",") if name.strip()}
        unknown = sorted(wanted - {name for name, _ in floats})
        if unknown:
            raise ConfigError(
                f"The model has no array '{unknown[0]}' to negate.",
                f"Its arrays begin with {', '.join(name for name, _ in floats[:6])}.",
            )
        if wanted:
            return wanted
        weights = [name for name, shape in floats if len(shape) >= 2] or [name for name, _ in floats]
        return set(weights[:1])
