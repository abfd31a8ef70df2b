"""What a model makes up in the remaining sites' images, beside what the oracle makes up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reconsent.errors import DataError
from unlearning.verification.equivalence import ALPHA, Equivalence, equivalence_test
from unlearning.verification.finding import Finding, decide

MARGIN = 0.015
"""Largest difference of the scores that counts as none; their unit is the energy of the object's edges."""

LIMITS = (
    "A score of false structure needs the object itself, so the check is made on phantoms only. It is an "
    "average over the remaining sites' patients, and knows nothing of what a radiologist would take an "
    "edge for. Its margin is a choice; where the original model made up hardly more than the oracle, the "
    "check can tell nothing."
)


@dataclass(frozen=True, slots=True)
class FalseStructureGap:
    """Score of false structure of a model minus that of the oracle.

    Attributes
    ----------
    equivalence
        The two one-sided tests over patients.
    reference
        The same of a second oracle against the first; ``None`` with one.
    """

    equivalence: Equivalence
    reference: float | None

    def finding(self) -> Finding:
        """It passes if as much is made up as by the oracle; an empty image has none, and does not pass."""
        test = self.equivalence
        said = f"({test.mean:+.3f} of the object's own edges)"
        if not test.decidable:
            words = f"Too few patients to test what is made up in the remaining images {said}."
        elif test.equivalent:
            words = "The remaining images show as much that is not there as those of a retrained model."
        elif test.different:
            way = "more" if test.mean > 0 else "less"
            words = (
                f"The remaining images show {way} that is not there than those of a retrained model {said}."
            )
        else:
            words = (
                "The patients are too few, or too different, to show that what is made up in the remaining "
                f"images {said} differs by less than {test.margin:g}."
            )
        return Finding(
            check="false-structure/retain-test",
            verdict=decide(test.equivalent, decidable=test.decidable and (test.equivalent or test.different)),
            value=test.mean,
            unit="",
            low=test.low if test.decidable else None,
            high=test.high if test.decidable else None,
            reference=self.reference,
            accepted_low=-test.margin,
            accepted_high=test.margin,
            words=words,
        )


def false_structure_gap(
    model: npt.ArrayLike,
    oracles: npt.ArrayLike,
    patients: Sequence[str] | None = None,
    *,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> FalseStructureGap:
    """Compare scores of false structure on the same volumes.

    Parameters
    ----------
    model
        Score of each volume, ``(volumes,)``, over the energy of the object's edges; no unit.
    oracles
        The same of K oracles that differ only in their seed, ``(K, volumes)`` or ``(volumes,)``.
    patients
        Whose volume each is; ``None``: each is a patient.
    margin, alpha
        Of the test, fixed beforehand.

    Raises
    ------
    DataError
        If the shapes do not fit, or a value is not finite.
    ConfigError
        If the margin is not positive.
    """
    ours = np.asarray(model, dtype=np.float64)
    theirs = np.atleast_2d(np.asarray(oracles, dtype=np.float64))
    if ours.ndim != 1 or theirs.shape[1] != ours.size:
        raise DataError(
            f"The model has scores of the shape {ours.shape}, the oracles {theirs.shape}.",
            "Measure all of them on the same volumes.",
        )
    test = equivalence_test(ours - theirs.mean(axis=0), margin=margin, patients=patients, alpha=alpha)
    reference = float(theirs[1].mean() - theirs[0].mean()) if theirs.shape[0] > 1 else None
    return FalseStructureGap(test, reference)
