"""The evidence of forgetting in ``results.json``; ``docs/evidence.md`` explains the checks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cli.results_record import Count, Record, Share


class FindingResult(Record):
    """The outcome of one check of one model."""

    model: str = Field(description="`original` (doing nothing, which must not pass) or `unlearned`")
    check: str = Field(description="name of the check, and of the set where there are several")
    verdict: Literal["passed", "failed", "undecided"] = Field(
        description="passed: as the oracle; failed: not, in either direction; undecided: too little to say"
    )
    value: float = Field(description="what was measured")
    unit: str = Field(description="of the value: dB, AUC, KS, or none")
    low: float | None = Field(default=None, description="lower end of its confidence interval")
    high: float | None = Field(default=None, description="upper end")
    reference: float | None = Field(
        default=None, description="the same of the oracle, or by how much two oracles differ"
    )
    accepted_low: float | None = Field(default=None, description="least value that passes")
    accepted_high: float | None = Field(default=None, description="largest value that passes")
    words: str = Field(description="one sentence for everybody")


class AttackResult(Record):
    """What a membership inference attack achieves on one model."""

    model: str = Field(description="`original`, `unlearned`, `oracle`")
    attack: Literal["loss", "lira"] = Field(description="threshold on the loss, or likelihood ratio")
    auc: Share = Field(description="area under the curve: 0.5 is guessing")
    low: Share = Field(description="lower end of its 95 % interval")
    high: Share = Field(description="upper end")
    tpr_at_1_percent: Share = Field(description="members found at no more than 1 % false alarms")
    tpr_at_01_percent: Share = Field(description="the same at 0.1 %")
    members: Count = Field(description="patients that were trained on")
    others: Count = Field(description="patients held out")
    false_positive_rates: tuple[float, ...] = Field(description="of the curve, from 0 to 1")
    true_positive_rates: tuple[float, ...] = Field(description="of the curve, from 0 to 1")


class HallucinationResult(Record):
    """Errors of one model on one set by what the measurements could have shown."""

    model: str = Field(description="`original`, `unlearned`, `oracle`")
    set: Literal["retain_test", "forget_test"] = Field(description="field of `accuracy`")
    measured: float = Field(
        ge=0, description="energy of errors that contradict the measurements, over that of the image"
    )
    null: float = Field(ge=0, description="energy of errors in what was not measured")
    false_structure: float | None = Field(
        default=None, ge=0, description="edges that are not in the object; null where it is not known"
    )
    missing_structure: float | None = Field(
        default=None, ge=0, description="edges of the object that are missing"
    )


class Evidence(Record):
    """Checks of forgetting beyond the accuracies."""

    oracles: Count = Field(description="models retrained without the site, with different seeds")
    findings: tuple[FindingResult, ...] = Field(default=(), description="by model, then check")
    attacks: tuple[AttackResult, ...] = Field(default=(), description="membership inference")
    hallucination: tuple[HallucinationResult, ...] = Field(default=(), description="by model, then set")
    limits: dict[str, str] = Field(default_factory=dict, description="what each check cannot show")
    not_measured: tuple[str, ...] = Field(default=(), description="checks left out, and why")
