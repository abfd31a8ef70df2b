"""Membership inference by the loss: patients that were trained on may be reconstructed too well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reconsent.errors import DataError
from unlearning.verification.bootstrap import RESAMPLES
from unlearning.verification.finding import Finding, decide
from unlearning.verification.roc import Roc, roc

AUC_MARGIN = 0.1
SHIFT_MARGIN = 0.5
FLOOR_FACTOR = 1.5

LIMITS = (
    "Membership inference by a loss threshold is weak: it finds a model that overfits its patients as a "
    "whole, and cannot tell a retrained model from a ruined one, which is why the members' losses themselves "
    "are compared with the retrained model's too. That an attack fails does not show that another "
    "would."
)


@dataclass(frozen=True, slots=True)
class AttackComparison:
    """The same attack on a model and on the oracle.

    Attributes
    ----------
    attack
        ``loss`` or ``lira``.
    model, oracle
        What the attack achieves on each.
    shift
        Mean difference of the members' scores from the oracle's, in standard deviations of the oracle's
        scores of all patients.
    auc_margin
        Largest difference of the areas that counts as none, fixed beforehand.
    shift_margin
        Largest size of the shift that counts as none: what was fixed beforehand, or ``FLOOR_FACTOR`` times
        the shift of another oracle, whichever is more.
    """

    attack: str
    model: Roc
    oracle: Roc
    shift: float
    auc_margin: float
    shift_margin: float

    @property
    def auc_gap(self) -> float:
        """Area of the model's curve minus the oracle's."""
        return self.model.auc - self.oracle.auc

    @property
    def decidable(self) -> bool:
        """Whether there were enough patients for a margin to mean anything: one patient is less than it."""
        return 1.0 / self.model.members <= 2 * self.auc_margin and 1.0 / self.model.others <= (
            2 * self.auc_margin
        )

    def finding(self) -> Finding:
        """As a finding: neither the area nor the scores may differ from the oracle's, in any direction."""
        within = abs(self.auc_gap) <= self.auc_margin and abs(self.shift) <= self.shift_margin
        if not self.decidable:
            words = (
                f"{self.model.members} patients trained on and {self.model.others} held out are too few to "
                "attack."
            )
        elif within:
            words = "An attacker finds out who was trained on no better than with the retrained model."
        elif abs(self.auc_gap) > self.auc_margin:
            better = "better" if self.auc_gap > 0 else "worse"
            words = (
                f"An attacker finds out who was trained on {better} than with the retrained model "
                f"(AUC {self.model.auc:.2f} and {self.oracle.auc:.2f})."
            )
        else:
            words = (
                f"The losses of those trained on differ from the retrained model's by {abs(self.shift):.1f} "
                "of their standard deviations."
            )
        return Finding(
            check=f"membership/{self.attack}",
            verdict=decide(within, decidable=self.decidable or not within),
            value=self.model.auc,
            unit="AUC",
            low=self.model.low,
            high=self.model.high,
            reference=self.oracle.auc,
            accepted_low=self.oracle.auc - self.auc_margin,
            accepted_high=self.oracle.auc + self.auc_margin,
            words=words,
        )


def loss_scores(losses: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Scores of the loss-threshold attack: −log loss, high for a patient that is reconstructed well.

    Parameters
    ----------
    losses
        Positive errors, as the NMSE of each patient, ``(N,)``.

    Raises
    ------
    DataError
        If a loss is not positive and finite.

    References
    ----------
    Yeom et al., *Privacy risk in machine learning*, IEEE CSF 2018 (threshold on the loss).
    """
    table = np.asarray(losses, dtype=np.float64)
    if not (np.isfinite(table).all() and (table > 0).all()):
        raise DataError("A loss is not positive and finite.", "Use an error such as the NMSE.")
    scores: npt.NDArray[np.float64] = -np.log(table)
    return scores


def compare_attacks(
    attack: str,
    model: tuple[npt.ArrayLike, npt.ArrayLike],
    oracle: tuple[npt.ArrayLike, npt.ArrayLike],
    *,
    others: Sequence[npt.ArrayLike] = (),
    auc_margin: float = AUC_MARGIN,
    shift_margin: float = SHIFT_MARGIN,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> AttackComparison:
    """Attack a model and the oracle, and compare what comes out.

    Parameters
    ----------
    attack
        Name of the attack.
    model, oracle
        Scores of the members, ``(M,)``, and of the non-members, ``(N,)``, of the same patients in the same
        order.
    others
        The members' scores on further oracles, ``(M,)`` each: how far oracles are apart by chance.
    auc_margin, shift_margin
        Fixed beforehand.
    resamples, seed
        Of the intervals.

    Raises
    ------
    DataError
        If the scores are none, not finite, or not of the same patients.
    """
    ours, theirs = np.asarray(model[0], dtype=np.float64), np.asarray(oracle[0], dtype=np.float64)
    if ours.shape != theirs.shape or np.shape(model[1]) != np.shape(oracle[1]):
        raise DataError("The attack on the oracle must be made on the same patients.")
    spread = float(np.concatenate([theirs, np.asarray(oracle[1], dtype=np.float64)]).std())
    shifts = [_shift(np.asarray(scores, dtype=np.float64) - theirs, spread) for scores in (ours, *others)]
    chance = max((abs(shift) for shift in shifts[1:]), default=0.0)
    return AttackComparison(
        attack=attack,
        model=roc(*model, resamples=resamples, seed=seed),
        oracle=roc(*oracle, resamples=resamples, seed=seed),
        shift=shifts[0],
        auc_margin=auc_margin,
        shift_margin=max(shift_margin, FLOOR_FACTOR * chance),
    )


def _shift(differences: npt.NDArray[np.float64], spread: float) -> float:
    """Mean difference in units of ``spread``; scores without any spread are a model without any variety."""
    mean = float(differences.mean())
    return mean / max(spread, 1e-9)


def patient_means(values: npt.ArrayLike, patients: npt.ArrayLike) -> dict[str, float]:
    """Patient → mean of their values, in the order of the patients' names.

    Parameters
    ----------
    values
        One a slice or volume, ``(volumes,)``.
    patients
        Whose each is, ``(volumes,)``.
    """
    table, names = np.asarray(values, dtype=np.float64), np.asarray(patients)
    return {str(name): float(table[names == name].mean()) for name in np.unique(names)}
