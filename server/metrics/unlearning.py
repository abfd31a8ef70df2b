"""Metrics of unlearning: the steps of ascent, those taken back, and what they cost the remaining sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconsent.exposition import Metric, Samples, Topic

STEPS = Metric(
    "reconsent_unlearning_ascent_steps_total",
    "counter",
    "Steps of cached ascent by outcome: kept, or taken_back since they cost the remaining sites too much",
    ("outcome",),
)
ALPHA = Metric(
    "reconsent_unlearning_ascent_alpha",
    "gauge",
    "Length of the newest step of cached ascent, kept or taken back, in units of R, the size of one update "
    "of the site, or of its whole contribution if the method's setting `unit` is `contribution`",
    seen_when="once a step was taken",
)
STEP_NORM = Metric(
    "reconsent_unlearning_ascent_step_norm",
    "gauge",
    "Length of the newest step of cached ascent, kept or taken back, as a Euclidean norm",
    seen_when="as above",
)
LOSS = Metric(
    "reconsent_unlearning_retain_loss",
    "gauge",
    "Loss of the remaining sites, of the original model (before) and after the newest ascent step's round "
    "(after)",
    ("model",),
    "once it was measured, by methods that do",
)
ROUND_AT = Metric(
    "reconsent_unlearning_last_round_timestamp_seconds",
    "gauge",
    "When the newest round of unlearning was committed, in seconds since 1970",
    seen_when="once there is one",
)

TOPIC = Topic("Unlearning", (STEPS, ALPHA, STEP_NORM, LOSS, ROUND_AT))


@dataclass(slots=True)
class Unlearning:
    """Follows the rounds of unlearning."""

    _steps: dict[str, int] = field(default_factory=lambda: {"kept": 0, "taken_back": 0})
    _notes: dict[str, float] = field(default_factory=dict)
    _at: float | None = None

    def take(self, phase: str, at: float, accepted: bool, notes: Mapping[str, float]) -> None:
        """Take up one round's record."""
        if phase != "unlearn":
            return
        self._at = at
        # Other methods move the model as well, and their moves are no steps of this length.
        ascended = "alpha" in notes
        self._notes |= {key: value for key, value in notes.items() if ascended or key != "step-norm"}
        if ascended:
            self._steps["kept" if accepted else "taken_back"] += 1

    def collect(self, samples: Samples) -> None:
        """Fill in this topic's metrics."""
        for outcome, number in self._steps.items():
            samples.set(STEPS, number, outcome)
        samples.set(ALPHA, self._notes.get("alpha"))
        samples.set(STEP_NORM, self._notes.get("step-norm"))
        samples.set(LOSS, self._notes.get("retain-loss-before"), "before")
        samples.set(LOSS, self._notes.get("retain-loss-after"), "after")
        samples.set(ROUND_AT, self._at)
