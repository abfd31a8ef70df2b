"""What the remaining sites feel of a step: their loss before it and after."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from reconsent.errors import ContributionError, RoundError
from strategies import messages as msg
from strategies.retain_fine_tuning import RetainFineTuning, RetainFineTuningSettings
from strategies.unlearning_strategy import Departure


class LossGate(RetainFineTuning):
    """Retain-only rounds that can ask the remaining sites for their loss on a part of their training data.

    The loss of the model it began from is the reference; a site that cannot say one any more has an infinite
    one, and a site that has gone says nothing.
    """

    changing: ClassVar[tuple[str, ...]] = (
        *RetainFineTuning.changing,
        *("_gate_sites", "_gate_losses", "_gate_examples", "_gate_seconds", "_gate_bytes"),
    )

    def __init__(self, departure: Departure, settings: RetainFineTuningSettings, **kwargs: Any) -> None:
        super().__init__(departure, settings, **kwargs)
        # Of the first model at each remaining site: the loss that a step is judged against.
        self._gate_sites: list[str] = []
        self._gate_losses: list[float] = []
        self._gate_examples: list[float] = []
        self._gate_seconds = 0.0
        self._gate_bytes = 0

    def _gate_cost(self) -> dict[str, float]:
        """What asking the sites for their loss has cost since this was told last."""
        told: dict[str, float] = {"gate-seconds": self._gate_seconds, "gate-bytes": self._gate_bytes}
        self._gate_seconds, self._gate_bytes = 0.0, 0
        return told if told["gate-bytes"] else {}

    def _refer_to(self, grid: Grid, arrays: ArrayRecord) -> None:
        """Ask the remaining sites for their loss of G, which later ones are judged against."""
        values = self._gate_metrics(grid, 0, arrays)
        told = {s: v for s, v in values.items() if math.isfinite(v[0]) and v[1] > 0}
        if not told:
            raise ContributionError(
                "No remaining site reported a loss, so the cost of the ascent cannot be judged.",
                "Bring the sites online, or set tolerance to empty and alpha to a number to go without.",
            )
        self._gate_sites = sorted(told)
        self._gate_losses = [told[site][0] for site in self._gate_sites]
        self._gate_examples = [told[site][1] for site in self._gate_sites]

    def _gate(self, grid: Grid, server_round: int, arrays: ArrayRecord) -> tuple[float, float]:
        """Mean loss of G and of ``arrays`` over the sites that know both; infinite if one has none now.

        A model that a step has ruined for a site makes its reconstructor fail. Over those who still answer
        the mean could even be lower than before. A site that has gone says nothing of the step.

        Raises
        ------
        RoundError
            If all of them have gone.
        """
        values = self._gate_metrics(grid, server_round, arrays)
        known = zip(self._gate_sites, self._gate_losses, self._gate_examples, strict=True)
        both = [(before, values[site][0], n) for site, before, n in known if site in values]
        if not both:
            raise RoundError(
                "None of the sites that the cost of the ascent is judged by is there any more.",
                "Bring them online and run it again.",
            )
        total = sum(n for _, _, n in both)
        return (
            sum(n * before for before, _, n in both) / total,
            sum(n * after for _, after, n in both) / total,
        )

    def _gate_metrics(
        self, grid: Grid, server_round: int, arrays: ArrayRecord
    ) -> dict[str, tuple[float, float]]:
        """Loss of ``arrays`` at each remaining site, and over how many slices; infinite where it fails."""
        values = self.evaluate(grid, server_round, arrays, {msg.SPLIT: msg.SPLIT_GATE})
        self._gate_seconds += sum(metrics.get(msg.SECONDS, 0.0) for metrics in values.values())
        self._gate_bytes += msg.payload_bytes(arrays) * len(values)
        found = {site: (math.inf, 1.0) for site, status in self.failures.items() if status == "app_error"}
        for site, metrics in values.items():
            loss = metrics.get(msg.LOSS, math.nan)
            examples, enrolled = metrics.get(msg.NUM_EXAMPLES, 1.0), self.screen.enrolled(site)
            # No site has a louder say in this than its training data give it.
            weight = examples if enrolled is None else min(examples, float(enrolled))
            found[site] = (loss if math.isfinite(loss) else math.inf, weight)
        return found
