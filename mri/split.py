"""Training and test patients of a site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconsent.errors import ConfigError, DataError
from reconsent.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Split:
    """Patients to train on and patients to test on, each sorted; no patient is in both."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def split_patients(patients: Sequence[str], *, test_fraction: float, seed: int) -> Split:
    """Split by patient, never by slice: slices of one patient resemble each other too much.

    Every patient is ranked by a number derived from the seed and the pseudonym alone, and the lowest
    ranks test. So the order of ``patients`` does not matter, repetitions count once, and a patient who
    is added or removed moves few others to the other side.

    Parameters
    ----------
    patients
        Pseudonyms.
    test_fraction
        Share of the patients to test on, rounded to whole patients; at least one patient is left on
        either side.
    seed
        Of the ranking.

    Raises
    ------
    DataError
        If there are fewer than two patients.
    ConfigError
        If the share is not between 0 and 1.
    """
    if not 0 < test_fraction < 1:
        raise ConfigError(
            f"The share of test patients is {test_fraction}.", "It must lie between 0 and 1, both excluded."
        )
    ranked = sorted(set(patients), key=lambda patient: (derive_seed(seed, "split", patient), patient))
    if len(ranked) < 2:
        found = f"only '{ranked[0]}'" if ranked else "none"
        raise DataError(
            f"Training and testing need two patients at least; there is {found}.",
            "Add volumes of another patient, or correct patient_id where volumes are of different patients.",
        )
    count = min(max(round(test_fraction * len(ranked)), 1), len(ranked) - 1)
    return Split(train=tuple(sorted(ranked[count:])), test=tuple(sorted(ranked[:count])))
