"""The strongest thing that may be claimed of a withdrawal, from facts, by fixed rules.

Weights alone prove nothing (Thudi et al., "On the Necessity of Auditable Algorithmic Definitions for Machine
Unlearning", 2022): the same model can be reached with and without a site. So a claim rests on the procedure
that is on record, and on what was measured against limits that were fixed before it ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from unlearning.certificate.evidence import About, Evidence


class ClaimLevel(StrEnum):
    """From the strongest to none."""

    EXACT_RETRAIN = "exact_retrain"
    CERTIFIED = "certified_eps_delta"
    EMPIRICAL = "empirical"
    PARTICIPATION_ENDED = "participation_ended"
    NONE = "none"


SENTENCES = {
    ClaimLevel.EXACT_RETRAIN: "The model was retrained without the site's contributions.",
    ClaimLevel.CERTIFIED: "Removal is certified within ε = {epsilon:g}, δ = {delta:g} of {mechanism}, by "
    "{accountant}, under these assumptions: {assumptions}.",
    ClaimLevel.EMPIRICAL: "The site's influence was reduced; every test met a limit fixed beforehand. "
    "This is not certified removal.",
    ClaimLevel.PARTICIPATION_ENDED: "The site takes no further part and its contributions were erased. "
    "Nothing is claimed about its influence on the model.",
    ClaimLevel.NONE: "Nothing was removed, and nothing is claimed.",
}
"""What each level may be written as, and no more; a bound with its numbers, as they are all it says."""

ENDED_ONLY = "The site takes no further part. Nothing is claimed about its influence on the model."
NOT_WHOLE = "The erasure of its contributions is not whole: see the reasons."
"""Where something of the erasure is known not to be done, nothing is written that says it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """A bound of removal.

    Attributes
    ----------
    epsilon, delta
        The bound.
    mechanism
        Whose bound it is: what was done to the model, in words.
    assumptions
        Under which it holds; without them it is worth nothing.
    accountant
        What computed it, with its version.
    """

    epsilon: float
    delta: float
    mechanism: str
    assumptions: str
    accountant: str

    @property
    def sound(self) -> bool:
        """Whether it can be a bound, and says what it rests on."""
        numbers = 0 <= self.epsilon < float("inf") and 0 <= self.delta < 1
        return numbers and all(words.strip() for words in (self.mechanism, self.assumptions, self.accountant))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is on record of a withdrawal.

    Attributes
    ----------
    completed
        It was carried through: models revoked, contributions erased.
    in_part
        Granted in part: the models stay.
    contributions_left
        How many contributions of the sites are still kept.
    changed
        Another model took the place of the one the sites had shaped.
    lineage_clean
        On the way from the initial model to the new one no round averaged an update of the sites.
    fresh_only
        The method used nothing that was computed before: neither contributions nor former updates of the
        others, which were computed from models the sites had shaped.
    fixed_before
        Settings and limits were recorded before the unlearning began.
    evidence
        What was measured, judged by those limits.
    certified
        A bound of removal, if one was computed.
    unfinished
        What of the erasure is known not to be done, in sentences.
    """

    completed: bool
    in_part: bool
    contributions_left: int
    changed: bool
    lineage_clean: bool
    fresh_only: bool
    fixed_before: bool
    evidence: Sequence[Evidence] = ()
    certified: Certified | None = None
    unfinished: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A level, why it is not a higher one, whether the erasure is whole, and the bound of a certified one."""

    level: ClaimLevel
    reasons: tuple[str, ...]
    whole: bool = True
    bound: Certified | None = None

    @property
    def sentence(self) -> str:
        """What may be written."""
        words = SENTENCES[self.level]
        if self.bound is not None:
            words = words.format(**asdict(self.bound))
        if self.whole or self.level is ClaimLevel.NONE:
            return words
        return f"{ENDED_ONLY if self.level is ClaimLevel.PARTICIPATION_ENDED else words} {NOT_WHOLE}"


def claim_of(facts: Facts) -> Claim:
    """The strongest level the facts bear; whatever is missing lowers it, or is said with it.

    A level is about the model. That a copy of a contribution may be left somewhere does not change the model,
    but what may be written of the erasure.
    """
    claim = _of_the_model(facts)
    if not facts.completed or not facts.unfinished:
        return claim
    return replace(claim, reasons=(*facts.unfinished, *claim.reasons), whole=False)


def _of_the_model(facts: Facts) -> Claim:
    if not facts.completed:
        return Claim(ClaimLevel.NONE, ("The withdrawal was not carried out.",))
    if facts.contributions_left:
        return Claim(
            ClaimLevel.NONE, (f"{facts.contributions_left} contributions of the site are still kept.",)
        )
    if facts.in_part:
        why = "The withdrawal was granted in part: models the site shaped are kept on another legal basis."
        return Claim(ClaimLevel.PARTICIPATION_ENDED, (why,))
    if not facts.changed:
        why = "No model was changed: no update of the site was in the current one."
        return Claim(ClaimLevel.PARTICIPATION_ENDED, (why,))
    if not facts.fixed_before:
        why = "Settings and limits were not recorded before the unlearning, so no measurement counts."
        return Claim(ClaimLevel.PARTICIPATION_ENDED, (why,))
    if facts.lineage_clean and facts.fresh_only:
        why = "The recorded lineage of the new model, from the initial one, has no update of the site."
        return Claim(ClaimLevel.EXACT_RETRAIN, (why,))
    reasons = [_why_not_exact(facts)]
    if facts.certified is not None and facts.certified.sound:
        return Claim(ClaimLevel.CERTIFIED, tuple(reasons), bound=facts.certified)
    reasons.append("No bound of removal was computed.")
    problem = _why_not_empirical(facts.evidence)
    if problem:
        return Claim(ClaimLevel.PARTICIPATION_ENDED, (*reasons, problem))
    return Claim(ClaimLevel.EMPIRICAL, tuple(reasons))


def _why_not_exact(facts: Facts) -> str:
    if facts.lineage_clean:
        return "The new model was made with updates that had been computed from models the site shaped."
    return "The lineage of the new model has rounds with updates of the site."


def _why_not_empirical(evidence: Sequence[Evidence]) -> str:
    forgetting = [item for item in evidence if item.about is About.FORGETTING]
    if not forgetting:
        return "Nothing was measured that could show whether the site is forgotten."
    open_ = [item.name for item in evidence if not item.passed]
    if open_:
        return f"Not every measurement met a limit fixed beforehand: {', '.join(open_)}."
    if all(item.blind for item in forgetting):
        return "The model before the unlearning met the limits too: the measurements could not have noticed."
    return ""
