"""Which slices of an examination are taken, and how they are cut into slabs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mri.importing.examination import MagnitudeImages, MultiCoilKspace
from mri.importing.options import ImportOptions
from reconsent.errors import DataError

EMPTY_SLICE = 0.02
"""Slices with less than this share of the brightest slice's energy show no anatomy."""

Loaded = MagnitudeImages | MultiCoilKspace


def choose_slabs(loaded: Loaded, options: ImportOptions, *, where: str) -> list[Loaded]:
    """Take the slices the options ask for, without empty ones, in one slab or several.

    Slices of images without anatomy (beside the body) are left out, and a remark says how many. Empty
    slices of k-space stay, to be refused, unless ``drop_empty`` is set.

    Raises
    ------
    DataError
        If no slice is left, or fewer than slabs.
    """
    data = loaded.images if isinstance(loaded, MagnitudeImages) else loaded.kspace
    first, last = options.slices or (0, len(data))
    wanted = np.arange(len(data))[first : last : options.slice_step]
    if not wanted.size:
        raise DataError(
            f"{where} has {len(data)} slices; none of them is in {first}:{last}.", "Choose other slices."
        )
    shown = _with_anatomy(loaded, wanted) if _may_drop(loaded, options) else wanted
    remarks = list(loaded.remarks)
    if shown.size < wanted.size:
        remarks.append(f"{where}: {wanted.size - shown.size} empty slices were left out")
    if shown.size < options.slabs:
        raise DataError(
            f"{where} has {shown.size} slices with signal, too few for {options.slabs} slabs.",
            "Choose fewer slabs or more slices.",
        )
    if options.slabs > 1:
        remarks.append(f"{where}: one examination was cut into {options.slabs} slabs that count as patients")
    slabs = np.array_split(shown, options.slabs)
    return [_take(loaded, slab, tuple(remarks) if not number else ()) for number, slab in enumerate(slabs)]


def _may_drop(loaded: Loaded, options: ImportOptions) -> bool:
    return isinstance(loaded, MagnitudeImages) or options.drop_empty


def _with_anatomy(loaded: Loaded, wanted: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    if isinstance(loaded, MultiCoilKspace):
        return wanted[[bool(loaded.kspace[index].any()) for index in wanted]]
    energy = np.array([np.sum(np.square(loaded.images[index], dtype=np.float64)) for index in wanted])
    shown: npt.NDArray[np.intp] = wanted[energy > EMPTY_SLICE * energy.max()]
    return shown


def _take(loaded: Loaded, slab: npt.NDArray[np.intp], remarks: tuple[str, ...]) -> Loaded:
    if isinstance(loaded, MagnitudeImages):
        return replace(loaded, images=loaded.images[slab], remarks=remarks)
    return replace(loaded, kspace=loaded.kspace[slab], remarks=remarks)
