"""What a simulation found by checks that no limit was fixed for, for its certificate to tell."""

from __future__ import annotations

from pathlib import Path

from cli.results import Results
from cli.results_evidence import Evidence, FindingResult
from server.certifying import Further
from unlearning.certificate.statement import SIMULATION
from unlearning.ledger.canonical import canonical

ABOUT = "unlearned"
"""The model that a certificate is about."""


def further_of_results(path: Path) -> Further | None:
    """The findings in a results file, and in words what they do not show; ``None`` if it has none.

    The words on what a check cannot show are those of the results, which have them from where each check is.
    """
    evidence = Results.load(path).evidence
    if evidence is None:
        return None
    return Further(
        canonical({"notice": SIMULATION, **evidence.model_dump(mode="json")}), tuple(_words(evidence))
    )


def _words(evidence: Evidence) -> list[str]:
    found = [_outcome([finding for finding in evidence.findings if finding.model == ABOUT])]
    texts: dict[str, list[str]] = {}
    for check, text in evidence.limits.items():
        texts.setdefault(text, []).append(check)
    found += [f"By {', '.join(checks)}: {text}" for text, checks in texts.items()]
    if evidence.not_measured:
        found.append(f"Anything by checks that were left out: {'; '.join(evidence.not_measured)}.")
    return found


def _outcome(findings: list[FindingResult]) -> str:
    """How the checks came out: also those that failed, as the claim does not rest on them."""

    def named(verdict: str) -> str:
        checks = [finding.check for finding in findings if finding.verdict == verdict]
        return f"{len(checks)} {verdict}" + (f" ({', '.join(checks)})" if checks else "")

    return (
        "Anything more by the further checks of the simulation: no limit was fixed for them beforehand, so "
        f"the claim does not rest on them. Of {len(findings)}, {named('passed')}, {named('failed')}, "
        f"{named('undecided')}; findings.json has them."
    )
