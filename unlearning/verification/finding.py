"""What a check found, in one form for all checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Verdict = Literal["passed", "failed", "undecided"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check of one model.

    Attributes
    ----------
    check
        Name of the check, and of the set it was made on where there are several: ``gap/forget-test``.
    verdict
        ``passed``: as the oracle, within what was fixed beforehand. ``failed``: it is not, in whichever
        direction. ``undecided``: the measurements are too few to say, or what to compare with is missing.
    value, unit
        What was measured.
    low, high
        Confidence interval of the value; ``None`` where there is none.
    reference
        The same of the oracle, or of two oracles against each other; ``None`` if unknown.
    accepted_low, accepted_high
        Where the value (its whole interval, if there is one) must lie to pass; ``None``: no bound.
    words
        One sentence for a reader who is no expert.
    """

    check: str
    verdict: Verdict
    value: float
    unit: str
    low: float | None
    high: float | None
    reference: float | None
    accepted_low: float | None
    accepted_high: float | None
    words: str

    @property
    def family(self) -> str:
        """Name of the check without the set."""
        return self.check.partition("/")[0]


def decide(passed: bool, *, decidable: bool = True) -> Verdict:
    """A verdict from a yes or no; ``undecided`` if the question could not be asked."""
    if not decidable:
        return "undecided"
    return "passed" if passed else "failed"


def with_control(finding: Finding, control: Finding | None) -> Finding:
    """The finding in view of the same check on the original model, to which nothing was done.

    A check of forgetting that the original passes too, or would pass but for too few patients (its value lies
    where it must), could not have noticed: passing it is undecided. What the remaining sites keep
    (``gap/retain-test``, ``kept``) is no such check.

    Parameters
    ----------
    finding
        Of the unlearned model.
    control
        The same check of the original model; ``None`` if it was not made.
    """
    keeps = finding.check == "gap/retain-test" or finding.family == "kept"
    if keeps or finding.verdict != "passed" or control is None or not _as_if_forgotten(control):
        return finding
    told = "passes too" if control.verdict == "passed" else "lies within the same bounds"
    words = f"{finding.words} But the original model {told}: this check could not have noticed anything."
    return replace(finding, verdict="undecided", words=words)


def _as_if_forgotten(control: Finding) -> bool:
    if control.verdict != "undecided":
        return control.verdict == "passed"
    low, high = control.accepted_low, control.accepted_high
    if low is None and high is None:
        return False
    return (low is None or control.value >= low) and (high is None or control.value <= high)
