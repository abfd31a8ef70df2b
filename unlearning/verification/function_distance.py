"""How far the outputs of two models are apart on the same inputs, beside two oracles' distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reconsent.errors import DataError
from unlearning.verification.finding import Finding, decide

FACTOR = 1.5

LIMITS = (
    "The function distance compares images pixel by pixel, on the images at hand. Models that agree "
    "there may differ on others. Without a second oracle there is nothing to say how near is near enough; "
    "the share of the original model's distance is then all that can be given."
)


@dataclass(frozen=True, slots=True)
class FunctionDistance:
    """Distance of a model's outputs from the oracle's.

    Attributes
    ----------
    distance
        Mean over volumes of ‖f(x) − f̂(x)‖² / ‖f̂(x)‖², no unit.
    original
        The same of the original model: what doing nothing gives; ``None`` if unknown.
    floor
        The same between oracles that differ in their seed; ``None`` with one.
    """

    distance: float
    original: float | None
    floor: float | None

    @property
    def remaining(self) -> float | None:
        """Distance over the original's: 1 for doing nothing, near 0 for the oracle itself."""
        return self.distance / self.original if self.original else None

    def finding(self, factor: float = FACTOR) -> Finding:
        """As a finding: at most ``factor`` times as far from the oracle as another oracle is."""
        limit = None if self.floor is None else factor * self.floor
        share = f" ({100 * self.remaining:.0f} % of the original model's)" if self.remaining else ""
        if limit is None:
            words = f"There is no second retrained model to say which distance is chance{share}."
        elif self.distance <= limit:
            words = "On the withdrawn site's scans its images differ no more than two retrained models' do."
        else:
            words = (
                "On the withdrawn site's scans its images are "
                f"{self.distance / (self.floor or 1e-12):.1f} times as far from the "
                "retrained model's as another retrained model's are."
            )
        return Finding(
            check="function-distance",
            verdict=decide(limit is not None and self.distance <= limit, decidable=limit is not None),
            value=self.distance,
            unit="",
            low=None,
            high=None,
            reference=self.floor,
            accepted_low=None,
            accepted_high=limit,
            words=words,
        )


def output_distance(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> float:
    """‖a − b‖² / ‖b‖² of one volume; 0 if both are zero.

    Parameters
    ----------
    ours, theirs
        Outputs of two models for the same input, of one shape.

    Raises
    ------
    DataError
        If the shapes differ.
    """
    a, b = np.asarray(ours, dtype=np.complex128), np.asarray(theirs, dtype=np.complex128)
    if a.shape != b.shape:
        raise DataError(f"Outputs of the shapes {a.shape} and {b.shape} cannot be compared.")
    energy = float(np.vdot(b, b).real)
    difference = float(np.sum(np.abs(a - b) ** 2))
    return difference / energy if energy > 0 else float(difference > 0)


def function_distance(
    model: npt.ArrayLike, original: npt.ArrayLike | None = None, others: npt.ArrayLike | None = None
) -> FunctionDistance:
    """Average the distances of single volumes from one oracle.

    Parameters
    ----------
    model
        Distance of the model from the oracle, ``(volumes,)``.
    original
        That of the original model, ``(volumes,)``.
    others
        That of further oracles, ``(K, volumes)``; their largest mean is the noise floor.
    """
    floor = None
    if others is not None and np.size(others):
        floor = float(np.atleast_2d(np.asarray(others, dtype=np.float64)).mean(axis=1).max())
    return FunctionDistance(
        distance=float(np.mean(np.asarray(model, dtype=np.float64))),
        original=None if original is None else float(np.mean(np.asarray(original, dtype=np.float64))),
        floor=floor,
    )
