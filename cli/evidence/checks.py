"""From measurements to findings: which numbers go into which check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cli import results_evidence as res
from cli.assessment import Measured
from cli.evidence.examination import Examined
from cli.evidence.retraining import flattened
from reconsent.config import ConsortiumConfig
from reconsent.errors import ReconsentError
from unlearning.verification.alignment import alignment
from unlearning.verification.false_structure_gap import false_structure_gap
from unlearning.verification.finding import Finding, with_control
from unlearning.verification.function_distance import function_distance
from unlearning.verification.kolmogorov import error_distributions
from unlearning.verification.likelihood_ratio import likelihood_ratio_scores
from unlearning.verification.membership import compare_attacks, loss_scores
from unlearning.verification.oracle_gap import oracle_gap
from unlearning.verification.relearning import Continuation, relearn_gap
from unlearning.verification.roc import Roc, roc
from unlearning.verification.without_oracle import Change, change, membership_alone

if TYPE_CHECKING:
    from cli.evidence.collect import Material, Subjects

SETS = ("retain_test", "forget_test", "forget_train")
SMALLEST_ERROR = 1e-12

Scores = np.ndarray


class Checks:
    """The checks of one simulation; with an oracle if there is one, else those that need none.

    Attributes
    ----------
    missing
        Checks that could not be made, and why; complete after :meth:`findings` and :meth:`attacks`.
    """

    def __init__(self, consortium: ConsortiumConfig, subjects: Subjects, material: Material) -> None:
        self._consortium = consortium
        self._wanted = consortium.assessment
        self._margins = consortium.compliance
        self._subjects = subjects
        self._material = material
        self._seed = consortium.seed
        self.missing: list[str] = []

    def findings(self, model: str) -> list[Finding]:
        """Every check of one model, in the order in which they are shown.

        A check that the original model passes as well decides nothing about another model.
        """
        found = [finding for check in self._checks(model) for finding in check]
        if model == "original":
            return found
        controls = {finding.check: finding for check in self._checks("original") for finding in check}
        # Nothing is trained on from the original; what it shows of forgetting at all stands for it.
        if "gap/forget-test" in controls:
            controls["continuation"] = controls["gap/forget-test"]
        return [with_control(finding, controls.get(finding.check)) for finding in found]

    def attacks(self) -> Iterator[res.AttackResult]:
        """What each attack achieves on each model."""
        for attack in self._attacks():
            for model in ("original", "unlearned", "oracle"):
                if model in self._subjects.models:
                    yield _attack(model, attack, self._roc(model, attack))

    def hallucination(self) -> Iterator[res.HallucinationResult]:
        """Mean scores of each model on the remaining organs' test data and on the withdrawn one's."""
        for model in ("original", "unlearned", "oracle"):
            for name in SETS[:2]:
                rows = [r for r in self._examined(model, name) if r.measured is not None]
                if rows:
                    yield res.HallucinationResult(
                        model=model,
                        set=name,
                        measured=_mean([r.measured for r in rows]) or 0.0,
                        null=_mean([r.null for r in rows]) or 0.0,
                        false_structure=_mean([r.false for r in rows]),
                        missing_structure=_mean([r.missing for r in rows]),
                    )

    # ---- the checks ---------------------------------------------------------------------------------------

    def _checks(self, model: str) -> Iterator[list[Finding]]:
        if self._material.oracles:
            yield [self._gap(model, name) for name in SETS]
            if self._relearned(model):
                yield [self._relearn(model)]
            if model == "unlearned" and self._material.continued:
                yield [self._continuation()]
            if self._wanted.function_distance:
                yield [self._distance(model)]
            yield [self._compared(model, attack) for attack in self._attacks()]
            yield [self._distributions(model)]
            yield self._false_structure(model)
        else:
            # A hospital that stays without some of its patients must lose as little as the others.
            stay = any(self._consortium.patients_leaving(site) for site in self._subjects.left)
            kept, lost = (SETS[:2], SETS[2:]) if stay else (SETS[:1], SETS[1:])
            yield [
                *(self._change(model, name).retained(self._margins.retain_margin_db) for name in kept),
                *(self._change(model, name).forgotten() for name in lost),
            ]
            yield [
                membership_alone(self._roc(model, "loss")) for attack in self._attacks() if attack == "loss"
            ]
        if self._material.directions:
            yield self._alignment(model)

    def _gap(self, model: str, name: str) -> Finding:
        ours, patients = self._accuracy(model, name)
        oracles = [self._accuracy(oracle, name)[0] for oracle in self._material.oracles]
        margin = self._margins.accuracy_margin_db
        shown = name.replace("_", "-")
        return oracle_gap(shown, ours, oracles, patients, margin=margin, seed=self._seed).finding()

    def _relearned(self, model: str) -> bool:
        return {model, "oracle"} <= self._subjects.relearn.keys()

    def _relearn(self, model: str) -> Finding:
        curves = [self._subjects.relearn[o] for o in self._material.oracles if o in self._subjects.relearn]
        margin = self._margins.relearn_margin_db
        return relearn_gap(self._subjects.relearn[model], *curves, margin=margin).finding()

    def _continuation(self) -> Finding:
        reference = np.mean([self._accuracy(o, "forget_test")[0] for o in self._material.oracles])
        before = float(self._accuracy("unlearned", "forget_test")[0].mean() - reference)
        after = float(np.mean([row.psnr for row in self._material.continued]) - reference)
        rounds, margin = self._material.continued_rounds, self._margins.accuracy_margin_db
        return Continuation(before, after, rounds, margin).finding()

    def _distance(self, model: str) -> Finding:
        def distances(name: str) -> list[float]:
            rows = [*self._examined(name, "forget_test"), *self._examined(name, "forget_train")]
            return [row.distance for row in rows if row.distance is not None]

        others = [distances(name) for name in self._material.oracles if name != "oracle"]
        return function_distance(distances(model), distances("original"), others or None).finding()

    def _compared(self, model: str, attack: str) -> Finding:
        others = [self._scores(name, attack)[0] for name in self._material.oracles if name != "oracle"]
        ours, theirs = self._scores(model, attack), self._scores("oracle", attack)
        return compare_attacks(attack, ours, theirs, others=others, seed=self._seed).finding()

    def _distributions(self, model: str) -> Finding:
        ours, patients = self._slice_errors(self._examined(model, "forget_train"))
        theirs, _ = self._slice_errors(self._examined("oracle", "forget_train"))
        others = [
            self._slice_errors(self._examined(name, "forget_train"))[0]
            for name in self._material.oracles
            if name != "oracle"
        ]
        query = self._slice_errors(self._material.query)[0] if self._material.query else None
        return error_distributions(
            ours, theirs, patients, query=query, others=others, seed=self._seed
        ).finding()

    def _false_structure(self, model: str) -> list[Finding]:
        """In the remaining sites' images; nothing where no object is known, as in all but phantoms."""

        def scores(name: str) -> dict[str, float]:
            rows = self._examined(name, "retain_test")
            return {f"{row.site}/{row.volume}": row.false for row in rows if row.false is not None}

        ours, others = scores(model), [scores(name) for name in self._material.oracles]
        known = [volume for volume in ours if all(volume in other for other in others)]
        if not known:
            return []
        patients = {
            f"{r.site}/{r.volume}": f"{r.site}/{r.patient}" for r in self._examined(model, "retain_test")
        }
        found = false_structure_gap(
            [ours[volume] for volume in known],
            [[other[volume] for volume in known] for other in others],
            [patients[volume] for volume in known],
        )
        return [found.finding()]

    def _alignment(self, model: str) -> list[Finding]:
        models = self._subjects.models
        oracle = flattened(models["oracle"]) if "oracle" in models else None
        try:
            found = alignment(
                flattened(models[model]),
                flattened(models["original"]),
                flattened(self._subjects.training[0]),
                self._material.directions,
                oracle=oracle,
            )
        except ReconsentError as error:
            self._miss(f"alignment: {error.problem}")
            return []
        return [found.finding()]

    def _change(self, model: str, name: str) -> Change:
        before, patients = self._accuracy("original", name)
        return change(
            name.replace("_", "-"), before, self._accuracy(model, name)[0], patients, seed=self._seed
        )

    # ---- what goes into them ------------------------------------------------------------------------------

    def _attacks(self) -> list[str]:
        wanted = self._wanted.membership
        attacks = [] if wanted == "none" else ["loss"]
        if wanted == "lira" and self._material.shadows:
            attacks.append("lira")
        return attacks

    def _roc(self, model: str, attack: str) -> Roc:
        return roc(*self._scores(model, attack), seed=self._seed)

    def _scores(self, model: str, attack: str) -> tuple[Scores, Scores]:
        """Scores of the withdrawn sites' training patients, and of their patients held out."""
        from cli.evidence.collect import patient_errors

        members = patient_errors(self._examined(model, "forget_train"))
        others = patient_errors(self._examined(model, "forget_test"))
        errors = np.array([*members.values(), *others.values()])
        scores = loss_scores(np.maximum(errors, SMALLEST_ERROR))
        if attack == "lira":
            names = [*members, *others]
            table = [[shadow[name] for name in names] for shadow in self._material.shadows]
            inside = [[row[name] for name in names] for row in self._material.trained_on]
            scores = likelihood_ratio_scores(
                scores, loss_scores(np.maximum(table, SMALLEST_ERROR)), np.array(inside)
            )
        return scores[: len(members)], scores[len(members) :]

    def _accuracy(self, model: str, name: str) -> tuple[np.ndarray, list[str]]:
        """PSNR of each volume of a set in dB, and whose it is."""
        rows = [row for row in self._subjects.quality if row.model == model and self._in(row, name)]
        return np.array([row.psnr for row in rows]), [f"{row.site}/{row.patient}" for row in rows]

    def _examined(self, model: str, name: str) -> list[Examined]:
        return [row for row in self._material.examined if row.model == model and self._in(row, name)]

    def _in(self, row: Measured | Examined, name: str) -> bool:
        if row.site not in self._subjects.left:
            return name == "retain_test"
        return name == f"forget_{row.split}"

    @staticmethod
    def _slice_errors(rows: Sequence[Examined]) -> tuple[np.ndarray, list[str]]:
        """Log NMSE of each slice, and whose it is."""
        errors = [max(error, SMALLEST_ERROR) for row in rows for error in row.slice_errors]
        patients = [f"{row.site}/{row.patient}" for row in rows for _ in row.slice_errors]
        return np.log(np.array(errors)), patients

    def _miss(self, why: str) -> None:
        if why not in self.missing:
            self.missing.append(why)


def _attack(model: str, attack: str, found: Roc) -> res.AttackResult:
    return res.AttackResult(
        model=model,
        attack="lira" if attack == "lira" else "loss",
        auc=found.auc,
        low=found.low,
        high=found.high,
        tpr_at_1_percent=found.tpr_at_1_percent,
        tpr_at_01_percent=found.tpr_at_01_percent,
        members=found.members,
        others=found.others,
        false_positive_rates=found.false_positive_rates,
        true_positive_rates=found.true_positive_rates,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
