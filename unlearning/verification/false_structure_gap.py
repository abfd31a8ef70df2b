"""What a model makes up in the remaining sites' images, beside what the oracle makes up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy.typing as npt

from unlearning.verification.equivalence import (
    ALPHA,
    Equivalence,
    beside_oracles,
    equivalence_test,
    finding_of,
)
from unlearning.verification.finding import Finding

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
        return finding_of(
            test,
            "false-structure/retain-test",
            value=test.mean,
            unit="",
            reference=self.reference,
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
    ours, theirs = beside_oracles(model, oracles)
    test = equivalence_test(ours - theirs.mean(axis=0), margin=margin, patients=patients, alpha=alpha)
    reference = float(theirs[1].mean() - theirs[0].mean()) if theirs.shape[0] > 1 else None
    return FalseStructureGap(test, reference)
