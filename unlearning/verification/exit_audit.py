"""The exit audit: what the holder of the withdrawn data can find out about a model with these data alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reconsent.errors import DataError
from unlearning.verification.bootstrap import Interval, Values, bootstrap_mean
from unlearning.verification.finding import Finding, decide
from unlearning.verification.kolmogorov import ks_distance
from unlearning.verification.membership import loss_scores
from unlearning.verification.roc import Roc, roc
from unlearning.verification.without_oracle import AUC_MARGIN, change, membership_alone

LIMITS = (
    "An exit audit can find that a model still knows the site's patients, and that it was changed at all. It "
    "cannot prove that they are forgotten: there is no retrained model to compare with, and a hidden trace "
    "is not looked for. With few patients most of it stays undecided. It speaks of the file that was audited "
    "and of no other model or copy."
)

Errors = Mapping[str, float]
"""Patient → NMSE; names serve to pair models, and never leave the site."""


@dataclass(frozen=True, slots=True)
class ExitAudit:
    """Figures of an exit audit: means over patients, and nothing about any one of them.

    Attributes
    ----------
    members, references
        Patients that were trained on, and others of the same kind that were not.
    accuracy, reference_accuracy
        −10 log₁₀ NMSE of the audited model on either, in dB, with intervals over patients.
    membership
        Attack on the audited model by the loss; ``None`` without references.
    membership_before
        The same on the model before the unlearning; ``None`` without that model.
    ks_references
        Kolmogorov-Smirnov distance between the errors of members and of references.
    ks_before
        The same between the errors on the members after and before.
    findings
        The checks, each with its verdict.
    """

    members: int
    references: int
    accuracy: Interval
    reference_accuracy: Interval | None
    membership: Roc | None
    membership_before: Roc | None
    ks_references: float | None
    ks_before: float | None
    findings: tuple[Finding, ...]


def exit_audit(
    members: Errors,
    references: Errors | None = None,
    *,
    members_before: Errors | None = None,
    references_before: Errors | None = None,
    auc_margin: float = AUC_MARGIN,
    seed: int = 0,
) -> ExitAudit:
    """Audit a model by its errors on the site's own patients.

    Parameters
    ----------
    members
        Errors of the audited model on the patients that were trained on.
    references
        The same on patients that nobody trained on, scanned alike; without them no membership inference.
    members_before, references_before
        Errors of the model before the unlearning on the same patients.
    auc_margin
        Largest area above 0.5 that counts as guessing, fixed beforehand.
    seed
        Of the bootstrap.

    Raises
    ------
    DataError
        If there are no patients, errors that are not positive, or other patients before than after.
    """
    inside = _scores(members)
    outside = None if references is None else _scores(references)
    findings: list[Finding] = []
    attack = attack_before = ks_references = ks_before = None
    if outside is not None:
        attack = roc(inside, outside, seed=seed)
        findings.append(membership_alone(attack, margin=auc_margin))
        ks_references = ks_distance(inside, outside)
    if members_before is not None:
        before = _paired(members, members_before)
        ks_before = ks_distance(inside, before)
        findings.append(change("members", _decibel(before), _decibel(inside), seed=seed).forgotten())
        if references is not None and references_before is not None:
            others = _paired(references, references_before)
            attack_before = roc(before, others, seed=seed)
            findings.append(_less_telling(attack_before, attack or attack_before))
    return ExitAudit(
        members=inside.size,
        references=0 if outside is None else outside.size,
        accuracy=bootstrap_mean(_decibel(inside), seed=seed),
        reference_accuracy=None if outside is None else bootstrap_mean(_decibel(outside), seed=seed),
        membership=attack,
        membership_before=attack_before,
        ks_references=ks_references,
        ks_before=ks_before,
        findings=tuple(findings),
    )


def _less_telling(before: Roc, after: Roc) -> Finding:
    """Whether the attack on the audited model tells less than the one on the model before."""
    fell, same = after.high < before.auc, after.auc >= before.auc
    return Finding(
        check="membership-change/loss",
        verdict=decide(fell, decidable=fell or same),
        value=after.auc - before.auc,
        unit="AUC",
        low=None,
        high=None,
        reference=before.auc,
        accepted_low=None,
        accepted_high=0.0,
        words=f"The attack's AUC was {before.auc:.2f} before the unlearning and is {after.auc:.2f} after it.",
    )


def _scores(errors: Errors) -> Values:
    """−log error of each patient, in the order of their names."""
    if not errors:
        raise DataError("There is no patient to audit with.", "Check the data directory.")
    return loss_scores([errors[name] for name in sorted(errors)])


def _paired(after: Errors, before: Errors) -> Values:
    if set(after) != set(before):
        raise DataError("The model before was measured on other patients than the audited one.")
    return _scores(before)


def _decibel(scores: Values) -> Values:
    """−log error as dB: 10 / ln 10 times it."""
    result: Values = scores * (10.0 / np.log(10.0))
    return result
