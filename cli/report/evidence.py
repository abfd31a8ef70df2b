"""The section on evidence: what each check found, in words first, then in tables and a figure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cli.report.canvas import NARROW, Drawing, axes, svg
from cli.report.palette import MUTED, ordered, style_of
from cli.report.tables import Table, table
from cli.report.words import count, signed
from cli.results import Results
from cli.results_evidence import Evidence, FindingResult

_QUESTIONS = {
    "gap/retain-test": "as accurate for the remaining hospitals as a retrained model?",
    "gap/forget-test": "as accurate on the withdrawn organ as a retrained model?",
    "gap/forget-train": "as accurate on the withdrawn hospital's own scans?",
    "relearn": "as fast to learn such images again?",
    "continuation": "still forgotten after further training without the hospital?",
    "function-distance": "the same images as a retrained model, pixel by pixel?",
    "membership/loss": "can an attacker tell its patients by how well they are reconstructed?",
    "membership/lira": "can an attacker with models of their own tell its patients?",
    "error-distribution": "errors on its scans spread as a retrained model's?",
    "false-structure/retain-test": "as much made up in the remaining organs' images as by a retrained model?",
    "alignment": "how far along the hospital's updates do the parameters still stand?",
    "kept/retain-test": "did the remaining hospitals lose?",
    "changed/forget-test": "did the model get worse on the withdrawn organ at all?",
    "changed/forget-train": "did it get worse on the hospital's own scans at all?",
}

_OF_PATIENTS = {
    "gap/forget-test": "as accurate for the hospital that stays as a retrained model?",
    "gap/forget-train": "as accurate on the scans of the patients who left?",
    "relearn": "as fast to learn more images of that hospital's organ?",
    "continuation": "the same after further training without the patients?",
    "membership/loss": "can an attacker tell the patients who left by how well they are reconstructed?",
    "membership/lira": "can an attacker with models of their own tell the patients who left?",
    "error-distribution": "errors on those patients' scans spread as a retrained model's?",
    "kept/forget-test": "did the hospital that stays lose?",
    "changed/forget-train": "did the model get worse on those patients' scans at all?",
}
"""The same where patients leave a hospital that stays."""

_MARKS = {"passed": "✓ passed", "failed": "✗ failed", "undecided": "○ undecided"}
_SETS = {"retain_test": "remaining hospitals", "forget_test": "withdrawn organ"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One check of one model: its number and its verdict."""

    value: str
    verdict: str
    tone: str


@dataclass(frozen=True, slots=True)
class Row:
    """One check: its name, its question, what it found on each model, and what would have passed."""

    name: str
    question: str
    original: Cell | None
    unlearned: Cell | None
    reference: str
    accepted: str


@dataclass(frozen=True, slots=True)
class Section:
    """What the template prints."""

    summary: tuple[str, ...]
    sentences: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    roc: Drawing | None
    attacks: Table | None
    hallucination: Table | None
    hallucination_words: str
    limits: tuple[tuple[str, str], ...]
    not_measured: tuple[str, ...]


def section(results: Results) -> Section | None:
    """The section of a run; ``None`` if there is no evidence in its results."""
    evidence = results.evidence
    if evidence is None or not evidence.findings:
        return None
    return Section(
        summary=tuple(_summary(evidence)),
        sentences=tuple(
            (_MARKS[finding.verdict].split()[0], _typeset(finding.words))
            for finding in _of(evidence, "unlearned")
        ),
        rows=tuple(_rows(evidence, patients=any(s.patients_left is not None for s in results.withdrawn))),
        roc=_roc(evidence),
        attacks=_attacks(evidence),
        hallucination=_hallucination(evidence),
        hallucination_words=_hallucination_words(evidence),
        limits=tuple((name, text) for name, text in evidence.limits.items()),
        not_measured=evidence.not_measured,
    )


def _typeset(words: str) -> str:
    """Hyphens before numbers as minus signs, and units kept on the line."""
    return re.sub(r"(?<![\w−-])-(?=\d)", "−", words).replace(" dB", "\u00a0dB").replace(" %", "\u00a0%")


def _of(evidence: Evidence, model: str) -> list[FindingResult]:
    return [finding for finding in evidence.findings if finding.model == model]


def _summary(evidence: Evidence) -> list[str]:
    ours, control = _of(evidence, "unlearned"), _of(evidence, "original")
    number = {verdict: sum(f.verdict == verdict for f in ours) for verdict in _MARKS}
    told = sum(f.verdict == "failed" for f in control)
    checks = count(len(ours), "check").capitalize()
    yardstick = (
        f"{count(evidence.oracles, 'retrained model').capitalize()} "
        f"{'is' if evidence.oracles == 1 else 'are'} the yardstick."
        if evidence.oracles
        else "Nobody retrained without the hospital, so these checks show change, not equality."
    )
    sentences = [
        f"{checks} ask in different ways whether the withdrawn hospital's data still act in the model. "
        f"{yardstick}",
        f"The unlearned model passes {_of_them(number['passed'])}, fails {_of_them(number['failed'])}, and "
        f"{_of_them(number['undecided'])} cannot be decided: too few data, or nothing to be seen.",
    ]
    if control:
        sentences.append(
            "Each check was also made on the original model, from which nothing was taken out: a check that "
            f"does not fail there could not have noticed. {count(told, 'check').capitalize()} did notice."
        )
    if evidence.oracles == 1:
        sentences.append(
            "With one retrained model, chance in the training is not known: differences as small as those "
            "between two retrainings look like findings."
        )
    return sentences


def _of_them(number: int) -> str:
    return f"{count(number, 'of them', 'of them')}" if number else "none"


def _rows(evidence: Evidence, *, patients: bool) -> list[Row]:
    questions = {**_QUESTIONS, **_OF_PATIENTS} if patients else _QUESTIONS
    names: list[str] = []
    for finding in evidence.findings:
        if finding.check not in names:
            names.append(finding.check)
    rows = []
    for name in names:
        cells = {f.model: f for f in evidence.findings if f.check == name}
        known = cells.get("unlearned") or next(iter(cells.values()))
        rows.append(
            Row(
                name=name,
                question=questions.get(name, ""),
                original=_cell(cells.get("original")),
                unlearned=_cell(cells.get("unlearned")),
                reference="" if known.reference is None else _number(known.reference, known.unit),
                accepted=_accepted(known),
            )
        )
    return rows


def _cell(finding: FindingResult | None) -> Cell | None:
    if finding is None:
        return None
    value = _number(finding.value, finding.unit, sign=finding.unit == "dB")
    if finding.low is not None and finding.high is not None:
        low, high = (
            signed(end) if finding.unit == "dB" else _number(end, "") for end in (finding.low, finding.high)
        )
        value += f" ({low} to {high})"
    tone = {"passed": "ok", "failed": "no"}.get(finding.verdict, "note")
    return Cell(value, _MARKS[finding.verdict], tone)


def _number(value: float, unit: str, *, sign: bool = False) -> str:
    if sign:
        text = signed(value)
    else:
        text = (f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}").replace("-", "−")
    return f"{text}\u00a0{unit}" if unit else text


def _accepted(finding: FindingResult) -> str:
    low, high = finding.accepted_low, finding.accepted_high
    if low is not None and high is not None:
        return f"{_number(low, '')} to {_number(high, '')}"
    if high is not None:
        return f"up to {_number(high, '')}"
    return "" if low is None else f"{_number(low, '')} or more"


def _roc(evidence: Evidence) -> Drawing | None:
    attack = "lira" if any(a.attack == "lira" for a in evidence.attacks) else "loss"
    curves = {a.model: a for a in evidence.attacks if a.attack == attack}
    if not curves:
        return None
    with axes(NARROW, 3.3) as (figure, ax):
        for model in ordered(curves):
            style, found = style_of(model), curves[model]
            ax.plot(
                found.false_positive_rates,
                found.true_positive_rates,
                color=style.colour,
                ls=style.line,
                label=style.title,
            )
        ax.plot((0, 1), (0, 1), color=MUTED, lw=0.8, label="guessing")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.01)
        ax.set_xlabel("false alarms among patients never trained on")
        ax.set_ylabel("patients found")
        figure.legend(loc="outside upper left", ncols=2, handlelength=2.4, columnspacing=1.2)
        text = "; ".join(f"{style_of(m).label} {curves[m].auc:.2f}" for m in ordered(curves))
        caption = (
            "Can an attacker tell who was trained on? A curve near the diagonal is guessing; what counts is "
            "that the unlearned model's runs like the oracle's."
        )
        return Drawing("roc", svg(figure), f"ROC curves of a membership attack; areas: {text}.", caption)


def _attacks(evidence: Evidence) -> Table | None:
    rows = [
        (
            f"{style_of(a.model).label}, {a.attack}",
            f"{a.auc:.2f} ({a.low:.2f} to {a.high:.2f})",
            f"{100 * a.tpr_at_1_percent:.0f}\u00a0%",
            f"{100 * a.tpr_at_01_percent:.0f}\u00a0%",
            f"{a.members} / {a.others}",
        )
        for a in evidence.attacks
    ]
    heads = "model, attack|>AUC (95 % interval)|>found at 1 % alarms|>at 0.1 %|>patients in / out"
    return table("Membership inference on the withdrawn hospital's patients", heads, rows) if rows else None


def _hallucination(evidence: Evidence) -> Table | None:
    rows = [
        (
            f"{style_of(h.model).label}, {_SETS[h.set]}",
            f"{h.measured:.4f}",
            f"{h.null:.4f}",
            "–" if h.false_structure is None else f"{h.false_structure:.3f}",
            "–" if h.missing_structure is None else f"{h.missing_structure:.3f}",
        )
        for h in sorted(evidence.hallucination, key=lambda h: h.set, reverse=True)
    ]
    heads = (
        "model, images|>contradicts the measurements|>made up where not measured|>false edges|>missing edges"
    )
    caption = (
        "Hallucinations: energy of errors over that of the image, sorted by what the measurements could have "
        "shown; and edges that are not in the object, where it is known. Less is better."
    )
    return table(caption, heads, rows) if rows else None


def _hallucination_words(evidence: Evidence) -> str:
    retain = {h.model: h for h in evidence.hallucination if h.set == "retain_test"}
    if not {"original", "unlearned"} <= retain.keys():
        return ""
    before, after = retain["original"], retain["unlearned"]
    change = 100 * (after.null / before.null - 1) if before.null > 0 else 0.0
    words = (
        "The paper says that unlearning removes hallucinations from the remaining organs' images. Here what "
        f"was made up in them, where nothing was measured, changed by {signed(change, 0)}\u00a0%"
    )
    if "oracle" in retain and before.null > 0:
        words += f" (the oracle: {signed(100 * (retain['oracle'].null / before.null - 1), 0)}\u00a0%)"
    if before.false_structure is not None and after.false_structure is not None:
        scores = f"from {before.false_structure:.3f} to {after.false_structure:.3f}"
        words += f"; the score of false edges went {scores}"
    return words + "."
