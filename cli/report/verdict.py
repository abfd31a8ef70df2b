"""The verdict in words, computed from the gaps and the consortium's margins; what else was checked is told.

Each of the three accuracies of the unlearned model must lie within ``accuracy-margin-db`` of the oracle's,
above *or* below: a model that is worse on the forgotten organ than one that never saw it carries a
trace of it too. After fine-tuning, it must follow the oracle within ``relearn-margin-db``, since
knowledge that is only hidden comes back fast. And there must be something to forget: where even the
original lies within the tolerance, the comparison proves nothing, and the verdict says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cli.report.words import count, listed, percent, signed
from cli.results import Results
from reconsent.config import ComplianceConfig

RUIN_DB = 3.0  # the mean squared error has doubled

Outcome = Literal[
    "no withdrawal", "no oracle", "ruined", "remembers", "harmed", "overshoots", "nothing to find",
    "relearning not measured", "hidden", "relearns slowly", "gained", "within",
]  # fmt: skip

_WORDS = {
    "retain-test": ("better than the oracle", "worse than the oracle"),
    "forget-test": ("still known", "worse than never seen"),
    "forget-train": ("still known", "worse than never seen"),
    "relearn": ("comes back faster", "comes back slower"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One gap against its tolerance.

    Attributes
    ----------
    name
        ``retain-test``, ``forget-test``, ``forget-train`` or ``relearn``.
    gap
        Unlearned minus oracle in dB; of ``relearn``, the one of largest size over the steps.
    original
        Original minus oracle in dB, the same way: what there was to forget; ``None`` if unknown.
    tolerance
        Largest size of the gap that counts as none, in dB.
    """

    name: str
    gap: float
    original: float | None
    tolerance: float

    @property
    def within(self) -> bool:
        """Whether the gap counts as none."""
        return abs(self.gap) <= self.tolerance

    @property
    def word(self) -> str:
        """What the gap means: ``within``, or what is wrong."""
        above, below = _WORDS[self.name]
        return "within" if self.within else above if self.gap > 0 else below


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run shows, in words.

    Attributes
    ----------
    outcome
        Which of the cases it is.
    headline
        One sentence for everybody.
    story, findings
        What happened, and what was found, a sentence each.
    checks
        The gaps behind it, empty without an oracle.
    """

    outcome: Outcome
    headline: str
    story: tuple[str, ...]
    findings: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def tone(self) -> Literal["good", "bad", "open"]:
        """Whether the outcome is what was wanted, is not, or cannot be told."""
        if self.outcome == "within":
            return "good"
        unknown = ("no withdrawal", "no oracle", "nothing to find", "relearning not measured", "gained")
        return "open" if self.outcome in unknown else "bad"


def judge(results: Results) -> Verdict:
    """Compute the verdict of a run on the method that made its unlearned model."""
    checks = checks_of(results, results.method) if results.method else ()
    outcome = _outcome(results, {check.name: check for check in checks})
    story, findings = _what_happened(results), _what_was_found(results, outcome, checks)
    findings = [sentence.replace(" dB", "\u00a0dB") for sentence in findings]
    return Verdict(outcome, _headline(results, outcome), tuple(story), tuple(findings), checks)


def checks_of(results: Results, method: str) -> tuple[Check, ...]:
    """The gaps of a method against their tolerances; empty if it was not compared with an oracle."""
    gap = results.oracle_gap.get(method)
    if gap is None:
        return ()
    original, margins = results.original_gap, margins_of(results)
    names = ("retain_test", "forget_test", "forget_train")
    checks = [
        Check(
            name.replace("_", "-"),
            getattr(gap, name),
            getattr(original, name) if original else None,
            margins.accuracy_margin_db,
        )
        for name in names
    ]
    if relearn := results.relearn_gap.get(method):
        checks.append(
            Check("relearn", _largest(relearn), _original_relearn(results), margins.relearn_margin_db)
        )
    return tuple(checks)


def margins_of(results: Results) -> ComplianceConfig:
    """Of the run's own consortium file; the defaults where it is too old to have any."""
    return ComplianceConfig.model_validate(results.consortium.get("compliance", {}))


def _largest(gaps: Mapping[int, float]) -> float:
    return max(gaps.values(), key=abs)


def _original_relearn(results: Results) -> float | None:
    if results.original_gap is None:
        return None
    original, oracle = results.relearn.get("original", {}), results.relearn.get("oracle", {})
    gaps = {steps: original[steps] - oracle[steps] for steps in original.keys() & oracle.keys()}
    return _largest(gaps) if gaps else None


def _outcome(results: Results, checks: Mapping[str, Check]) -> Outcome:
    if not results.withdrawn:
        return "no withdrawal"
    if not checks:
        return "no oracle"
    retain, relearn = checks["retain-test"], checks.get("relearn")
    forget = (checks["forget-test"], checks["forget-train"])
    known = [c.original for c in (*forget, relearn) if c is not None and c.original is not None]
    tolerances = [c.tolerance for c in (*forget, relearn) if c is not None and c.original is not None]
    if retain.gap < -RUIN_DB:
        return "ruined"
    if any(check.gap > check.tolerance for check in forget):
        return "remembers"
    if known and all(abs(gap) <= limit for gap, limit in zip(known, tolerances, strict=True)):
        return "nothing to find"
    if retain.gap < -retain.tolerance:
        return "harmed"
    if not all(check.within for check in forget):
        return "overshoots"
    if relearn is None:
        return "relearning not measured"
    if not relearn.within:
        return "hidden" if relearn.gap > 0 else "relearns slowly"
    return "within" if retain.within else "gained"


def _headline(results: Results, outcome: Outcome) -> str:
    gone = _gone(results)
    stayed = count(len(results.remaining), "remaining hospital")
    several = len(results.withdrawn) > 1 or any(s.patients_left not in (None, 1) for s in results.withdrawn)
    were, are, them = ("were", "are", "them") if several else ("was", "is", "it")
    return {
        "no withdrawal": f"{count(len(results.sites), 'hospital').capitalize()} trained one model together; "
        "nobody withdrew",
        "no oracle": f"{_upper(gone)} {were} taken out, but whether this is forgotten was not measured",
        "ruined": f"Taking out {gone} ruined the model for the {stayed}",
        "remembers": f"The model still shows what it learned from {gone}",
        "harmed": f"{_upper(gone)} {are} forgotten, but the {stayed} paid for it",
        "overshoots": f"The model is now worse for {gone} than one that never saw {them}, which is a trace "
        "too",
        "nothing to find": f"This run cannot show whether {gone} {are} forgotten: there was too little to "
        "see",
        "relearning not measured": f"Measured by its accuracy, the model behaves as if {gone} had never "
        "taken part, but whether the knowledge is gone or only hidden was not measured",
        "hidden": f"What the model learned from {gone} is hidden rather than gone: it comes back fast",
        "relearns slowly": f"{_upper(gone)} {are} forgotten, but the model resists learning such images "
        "again, which is a trace too",
        "gained": f"{_upper(gone)} {are} forgotten, and the {stayed} do better than retraining would make "
        "them",
        "within": f"Measured by its accuracy, the model now behaves as if {gone} had never taken part",
    }[outcome]


def _what_happened(results: Results) -> list[str]:
    trained = sum(r.line == "main" and r.kind == "train" for r in results.rounds)
    rounds = f" for {count(trained, 'round')}" if trained else ""
    hospitals = count(len(results.sites), "hospital").capitalize()
    story = [f"{hospitals} trained one model to reconstruct MR images{rounds}, without sharing a scan."]
    organs = {site.name: site.organ for site in results.sites}
    for withdrawal in results.withdrawals:
        who = listed([s if s == organs[s] else f"{s} ({organs[s]})" for s in withdrawal.sites])
        noun = "Hospital" if len(withdrawal.sites) == 1 else "Hospitals"
        if withdrawal.patients is not None:
            left = count(withdrawal.patients, "patient")
            story.append(f"{left} of hospital {who} withdrew after round {withdrawal.at_round}; it stayed.")
            continue
        story.append(f"{noun} {who} withdrew after round {withdrawal.at_round}.")
    patients = any(site.patients_left is not None for site in results.withdrawn)
    if results.unlearning and results.withdrawn:
        ascent = sum(step.accepted for step in results.unlearning.steps)
        retain = sum(record.line == "main" and record.kind == "retain" for record in results.rounds)
        steps = count(ascent, "step") + " away from its contribution" if ascent else ""
        alone = "the hospitals worked on it" if patients else "only the remaining hospitals trained"
        repair = count(retain, "round") + f" in which {alone}" if retain else ""
        what = listed([part for part in (steps, repair) if part])
        cost = results.cost.get(results.unlearning.method)
        share = f" This took {percent(cost.rounds_fraction)} of the training's rounds." if cost else ""
        whom = "them" if patients or len(results.withdrawn) > 1 else "it"
        how = results.unlearning.method + (f": {what}" if ascent or retain else "")
        story.append(f"What had been learned from {whom} was then taken out by {how}.{share}")
    return story


def _what_was_found(results: Results, outcome: Outcome, checks: tuple[Check, ...]) -> list[str]:
    if outcome == "no withdrawal":
        return []
    gone = _gone(results)
    if outcome == "no oracle":
        return [f"No oracle (the model retrained from scratch without {gone}) was trained to compare with."]
    accuracies = [check for check in checks if check.name != "relearn"]
    widest, tolerance = max(abs(check.gap) for check in accuracies), accuracies[0].tolerance
    found = [
        f"Compared with the oracle, the model retrained from scratch without {gone}, it is within "
        f"{widest:.2f} dB on all three accuracies (tolerance {tolerance:g} dB)."
        if all(check.within for check in accuracies)
        else f"Compared with the oracle, the model retrained from scratch without {gone}, it differs by more "
        f"than the tolerance of {tolerance:g} dB on "
        + listed([f"{c.name} ({signed(c.gap)} dB: {c.word})" for c in accuracies if not c.within])
        + "."
    ]
    relearn = next((check for check in checks if check.name == "relearn"), None)
    if relearn is None:
        found.append("How fast it learns such images again was not measured.")
    else:
        how = "as fast as" if relearn.within else "faster than" if relearn.gap > 0 else "slower than"
        found.append(
            f"Shown fresh images of the withdrawn organ, it learns them {how} the oracle "
            f"(largest difference {signed(relearn.gap)} dB, tolerance {relearn.tolerance:g} dB)."
        )
    found.append(_retained(results, checks[0]))
    if outcome == "nothing to find":
        found.append(
            "But the original model, from which nothing was taken out, lies within the tolerance as well: "
            "this comparison could not have noticed had nothing been forgotten."
        )
    elif outcome in ("within", "gained"):
        found += _still_told(results)
    return found


def _still_told(results: Results) -> list[str]:
    """What the further evidence holds against a model whose gaps are within their tolerances."""
    findings = results.evidence.findings if results.evidence else ()
    failed = [f.words for f in findings if f.model == "unlearned" and f.verdict == "failed"]
    if not failed:
        return []
    checks = count(len(failed), "further check").capitalize()
    what = "; ".join(words[:1].lower() + words[1:].rstrip(".") for words in failed)
    return [f"{checks} still {'tells' if len(failed) == 1 else 'tell'} it from the oracle: {what}."]


def _retained(results: Results, retain: Check) -> str:
    stayed = "The remaining hospital" if len(results.remaining) == 1 else "The remaining hospitals"
    beside = f"{signed(retain.gap)} dB from the oracle"
    if retain.original is None:
        return f"{stayed}: {beside}."
    change = retain.gap - retain.original
    verb = "gained" if change > 0 else "lost"
    if abs(change) < 0.05:
        return f"{stayed} neither gained nor lost against the original model ({beside})."
    return f"{stayed} {verb} {abs(change):.2f} dB against the original model ({beside})."


def _gone(results: Results) -> str:
    whole = [site.name for site in results.withdrawn if site.patients_left is None]
    parts = [
        f"{count(site.patients_left, 'patient')} of hospital {site.name}"
        for site in results.withdrawn
        if site.patients_left is not None
    ]
    noun = "hospital" if len(whole) == 1 else "hospitals"
    return listed([*([f"{noun} {listed(whole)}"] if whole else []), *parts])


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
