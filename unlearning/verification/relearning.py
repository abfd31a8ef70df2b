"""Gone or only hidden: how fast it comes back by relearning, and whether it comes back by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reconsent.errors import DataError
from unlearning.verification.finding import Finding, decide

LIMITS = (
    "Relearning on fresh images of the organ tells a model that hides its knowledge from one that lost it, "
    "up to the number of steps tried and with one learning rate. Knowledge that the remaining sites' images "
    "teach as well comes back in both. Continuation is watched for as many rounds as were run, no longer."
)


@dataclass(frozen=True, slots=True)
class RelearnGap:
    """Accuracy after fine-tuning on fresh data of the withdrawn organ, minus the oracle's.

    Attributes
    ----------
    gaps
        Steps → gap in dB to the mean oracle.
    floor
        Largest distance of an oracle from the mean of the oracles over the steps, in dB; ``None`` with one.
    margin
        Largest gap that counts as none, in dB, fixed beforehand.
    """

    gaps: dict[int, float]
    floor: float | None
    margin: float

    @property
    def largest(self) -> float:
        """The gap of largest size, with its sign: positive comes back too fast."""
        return max(self.gaps.values(), key=abs)

    def finding(self) -> Finding:
        """The largest gap as a finding; too slow fails as well as too fast."""
        within = abs(self.largest) <= self.margin
        if within:
            words = "Shown fresh images of the organ, the model learns them as fast as the retrained one."
        elif self.largest > 0:
            words = "Shown fresh images of the organ, the model learns them faster: it was only hidden."
        else:
            words = "The model resists learning such images again, which is a trace too."
        return Finding(
            check="relearn",
            verdict=decide(within),
            value=self.largest,
            unit="dB",
            low=None,
            high=None,
            reference=self.floor,
            accepted_low=-self.margin,
            accepted_high=self.margin,
            words=words,
        )


@dataclass(frozen=True, slots=True)
class Continuation:
    """Accuracy on the forgotten after further rounds in which only the remaining sites train.

    Attributes
    ----------
    before, after
        Gap of the unlearned model to the oracle before and after those rounds, in dB.
    rounds
        How many there were.
    margin
        Largest gap that counts as none, in dB.
    """

    before: float
    after: float
    rounds: int
    margin: float

    @property
    def returned(self) -> float:
        """By how many dB the forgotten came back."""
        return self.after - self.before

    def finding(self) -> Finding:
        """The gap after the rounds as a finding."""
        within = abs(self.after) <= self.margin
        rounds = f"{self.rounds} further round{'s' if self.rounds != 1 else ''}"
        words = (
            f"After {rounds} without the site it is still forgotten."
            if within
            else f"After {rounds} without the site the gap is {self.after:+.2f} dB"
            + (": it comes back by itself." if self.after > self.margin and self.returned > 0 else ".")
        )
        return Finding(
            check="continuation",
            verdict=decide(within),
            value=self.after,
            unit="dB",
            low=None,
            high=None,
            reference=self.before,
            accepted_low=-self.margin,
            accepted_high=self.margin,
            words=words,
        )


def relearn_gap(model: Mapping[int, float], *oracles: Mapping[int, float], margin: float) -> RelearnGap:
    """Compare relearning curves.

    Parameters
    ----------
    model
        Steps of fine-tuning → mean accuracy on the organ's test volumes in dB.
    oracles
        The same of one or several oracles, all fine-tuned on the same data in the same order.
    margin
        Largest gap that counts as none, in dB, fixed beforehand.

    Raises
    ------
    DataError
        If there is no oracle, or the steps differ.
    """
    if not oracles or not model or any(set(curve) != set(model) for curve in oracles):
        raise DataError(
            "Relearning curves must have the same steps, and there must be an oracle's.",
            "Measure every model after the same numbers of steps.",
        )
    gaps, floor = {}, 0.0
    for steps in sorted(model):
        theirs = np.array([curve[steps] for curve in oracles])
        gaps[steps] = float(model[steps] - theirs.mean())
        floor = max(floor, float(np.abs(theirs - theirs.mean()).max()))
    return RelearnGap(gaps, floor if len(oracles) > 1 else None, margin)
