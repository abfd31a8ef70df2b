"""What can be shown where no oracle exists: in a real deployment nobody retrains to prove a point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from reconsent.errors import DataError
from unlearning.verification.bootstrap import Interval, bootstrap_mean
from unlearning.verification.finding import Finding, Verdict, decide
from unlearning.verification.roc import Roc

AUC_MARGIN = 0.1

SHOWS = (
    "What the unlearning cost the remaining sites, measured on their own test patients.",
    "By how much the model got worse on the withdrawn site's data, if the site measured it.",
    "Whether the site's training patients are still reconstructed better than patients nobody trained on.",
    "What gap from a retrained model such settings left in simulations of the same network (calibration).",
)

DOES_NOT_SHOW = (
    "How far the model is from one retrained without the site: nobody trained that one. The calibration "
    "predicts it for phantoms; for real data it is a guess.",
    "Whether too much was forgotten: without the retrained model there is no measure of enough.",
    "Whether knowledge is gone or only hidden, unless the site lets the model be fine-tuned on its data.",
    "Anything about a single patient beyond the attacks that were tried.",
)

LIMITS = (
    "Without a retrained model there is no yardstick: these checks show change, not equality. "
    "They can find that a site was not forgotten; that it was, they cannot prove."
)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Oracle gaps that the chosen settings left in simulations.

    Attributes
    ----------
    gaps
        Name of a gap (``retain-test``, ``forget-test``, ``forget-train``, ``relearn``) → one value a
        simulation, in dB.
    """

    gaps: Mapping[str, tuple[float, ...]]

    def predicted(self, name: str) -> tuple[float, float, float]:
        """Mean gap in dB, and bounds within which one more simulation's lies with a probability of 0.95.

        The prediction interval of a normal variable, x̄ ± t₀.₉₇₅(n−1) · s · √(1 + 1/n); infinite for one
        simulation.

        Raises
        ------
        DataError
            If that gap was not measured.
        """
        values = self.gaps.get(name, ())
        if not values:
            raise DataError(
                f"The calibration measured no gap '{name}'.",
                f"It has {', '.join(sorted(self.gaps)) or 'none'}; run `reconsent calibrate` again.",
            )
        mean = float(np.mean(values))
        if len(values) < 2:
            return mean, -math.inf, math.inf
        spread = float(np.std(values, ddof=1)) * math.sqrt(1.0 + 1.0 / len(values))
        half = float(stats.t.ppf(0.975, len(values) - 1)) * spread
        return mean, mean - half, mean + half

    def finding(self, name: str, margin: float) -> Finding:
        """Whether the predicted gap lies within the margin, bounds and all."""
        mean, low, high = self.predicted(name)
        decidable = math.isfinite(low)
        within = -margin <= low and high <= margin
        outside = low > margin or high < -margin
        count = len(self.gaps[name])
        words = (
            f"In {count} simulation{'s' if count != 1 else ''} such settings left {mean:+.2f} dB on {name}"
        )
        words += f"; another would leave {low:+.2f} to {high:+.2f} dB." if decidable else "."
        return Finding(
            check=f"predicted/{name}",
            verdict=decide(within, decidable=decidable and (within or outside)),
            value=mean,
            unit="dB",
            low=low if decidable else None,
            high=high if decidable else None,
            reference=0.0,
            accepted_low=-margin,
            accepted_high=margin,
            words=words,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """Accuracy after the unlearning minus before, on the same volumes.

    Attributes
    ----------
    name
        Of the set.
    interval
        Mean change in dB with its interval over patients.
    """

    name: str
    interval: Interval

    def retained(self, margin: float) -> Finding:
        """For a remaining site: it must not have lost more than ``margin`` dB."""
        low = self.interval.low
        kept = low >= -margin
        lost = self.interval.high < -margin
        return self._finding(
            "kept",
            decide(kept, decidable=self.interval.patients > 1 and (kept or lost)),
            accepted_low=-margin,
            words=f"The remaining sites' scans changed by {self.interval.mean:+.2f} dB.",
        )

    def forgotten(self) -> Finding:
        """For the withdrawn site: it must have become worse at all, for doing nothing changes nothing."""
        worse, same = self.interval.high < 0.0, self.interval.low >= 0.0
        return self._finding(
            "changed",
            decide(worse, decidable=self.interval.patients > 1 and (worse or same)),
            accepted_high=0.0,
            words=f"The withdrawn site's scans changed by {self.interval.mean:+.2f} dB.",
        )

    def _finding(
        self,
        check: str,
        verdict: Verdict,
        *,
        words: str,
        accepted_low: float | None = None,
        accepted_high: float | None = None,
    ) -> Finding:
        return Finding(
            check=f"{check}/{self.name}",
            verdict=verdict,
            value=self.interval.mean,
            unit="dB",
            low=self.interval.low,
            high=self.interval.high,
            reference=None,
            accepted_low=accepted_low,
            accepted_high=accepted_high,
            words=words,
        )


def change(
    name: str,
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    patients: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> Change:
    """Compare the accuracies of two models, before and after, volume by volume.

    Parameters
    ----------
    name
        Of the set.
    before, after
        Accuracy in dB of the same volumes, ``(volumes,)``.
    patients
        Whose volume each is.
    seed
        Of the bootstrap.

    Raises
    ------
    DataError
        If the arrays do not fit each other.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape:
        raise DataError(f"Accuracies of the shapes {first.shape} and {second.shape} cannot be compared.")
    return Change(name, bootstrap_mean(second - first, patients, seed=seed))


def membership_alone(model: Roc, *, margin: float = AUC_MARGIN) -> Finding:
    """An attack without an oracle beside it: it must do no better than guessing.

    Parameters
    ----------
    model
        What the attack achieves.
    margin
        Largest area above 0.5 that counts as guessing, fixed beforehand.

    Notes
    -----
    Patients may be easier or harder than those held out, with no memory of them at all; only the oracle could
    tell. So the whole interval must be below the bound to pass, and above it to fail.
    """
    bound = 0.5 + margin
    guessing, telling = model.high <= bound, model.low > bound
    return Finding(
        check="membership/loss",
        verdict=decide(guessing, decidable=guessing or telling),
        value=model.auc,
        unit="AUC",
        low=model.low,
        high=model.high,
        reference=0.5,
        accepted_low=None,
        accepted_high=bound,
        words=f"An attacker tells the site's patients from others with an AUC of {model.auc:.2f} "
        "(0.5 is guessing).",
    )
