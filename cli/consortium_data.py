"""The data of a simulated consortium's sites: made where there are none, and looked into once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from reconsent.config import ConsortiumConfig
from reconsent.errors import DataError

if TYPE_CHECKING:
    from mri.overlap import KnownVolumes
    from mri.split import Split as PatientSplit

Progress = Callable[[str, int, int], None]
"""Told what is being done, how far it is, and how far it will go."""


def prepare_data(consortium: ConsortiumConfig, progress: Progress) -> None:
    """Make the phantoms of sites without data, and read every site's patients once.

    Raises
    ------
    DataError
        If a site's data cannot be used, or two sites would share patients.
    """
    from client.site import site_directory, site_split
    from mri.overlap import KnownVolumes

    seen: dict[str, tuple[Path, set[str], KnownVolumes]] = {}
    for site in consortium.sites:

        def step(done: int, total: int, name: str = site.name) -> None:
            progress(f"data of {name}", done, total)

        directory = site_directory(consortium.seed, site, progress=step).resolve()
        split = site_split(consortium.seed, site)
        patients = {*split.train, *split.test}
        _refuse_unknown_leavers(consortium, site.name, split)
        known = KnownVolumes(directory, patients)
        for other, (place, theirs, volumes) in seen.items():
            if place == directory and (shared := len(patients & theirs)):
                raise DataError(
                    f"The sites '{other}' and '{site.name}' share {shared} patients of {directory}.",
                    "Give each site a directory of its own, or name its patients with `patients`.",
                )
            if place != directory:
                _refuse_overlap(other, volumes, site.name, known)
        seen[site.name] = directory, patients, known


def _refuse_unknown_leavers(consortium: ConsortiumConfig, site: str, split: PatientSplit) -> None:
    leaving = consortium.patients_leaving(site)
    remedy = "`reconsent data check` lists the patients of a directory."
    if unknown := sorted(leaving - {*split.train, *split.test}):
        raise DataError(f"Site '{site}' has no patients {', '.join(unknown)} who could withdraw.", remedy)
    if leaving and leaving.isdisjoint(split.train):
        raise DataError(
            f"Site '{site}' only tests on the patients who withdraw: there is nothing to unlearn.",
            f"It trains on {', '.join(split.train[:5])}{', …' if len(split.train) > 5 else ''}.",
        )
    if leaving >= set(split.train) or leaving >= set(split.test):
        raise DataError(
            f"Without the patients who withdraw site '{site}' would have none to train, or none to test on.",
            "Withdraw the site as a whole.",
        )


def _refuse_overlap(first: str, theirs: KnownVolumes, second: str, own: KnownVolumes) -> None:
    """Patients of two sites in one consortium: whoever withdraws would stay in the other's contributions."""
    remedy = "Leave each patient at one site only, or name a site's patients with `patients`."
    if shared := sorted(theirs.pseudonyms & own.pseudonyms):
        shown = ", ".join(shared[:3]) + (", …" if len(shared) > 3 else "")
        raise DataError(
            f"The sites '{first}' and '{second}' share {len(shared)} patients, in different directories: "
            f"{shown}.",
            remedy,
        )
    if same := theirs.same_files(own):
        raise DataError(
            f"The sites '{first}' and '{second}' share {len(same)} volumes: {same[0][0]} and {same[0][1]} "
            "hold the same bytes.",
            remedy,
        )
