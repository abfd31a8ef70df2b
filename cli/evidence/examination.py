"""What every model makes of one site's volumes: errors, distances from the oracle, hallucinations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cli.assessment import observed_dataset
from client.site import Site, site_directory
from mri.dataset import SiteDataset
from mri.directory import list_volumes
from mri.evaluation import reconstruct_volume
from mri.false_structure import false_structure
from mri.fastmri_file import read_volume
from mri.hallucination import slice_spaces, volume_hallucination
from mri.reconstructors import Reconstructor, build_reconstructor
from reconsent.config import load_consortium
from unlearning.parameters import Arrays
from unlearning.verification.function_distance import output_distance

Image = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Examined:
    """What one model makes of one volume.

    Attributes
    ----------
    model, site, split, patient, volume
        Which.
    slice_errors
        NMSE of each slice with signal.
    nmse
        Of the volume.
    distance
        ‖f(x) − f̂(x)‖² / ‖f̂(x)‖² to the oracle; ``None`` without one.
    measured, null
        Energies of the two kinds of hallucination; ``None`` where they were not asked for.
    false, missing
        Scores of structure; ``None`` where the object is not known.
    """

    model: str
    site: str
    split: str
    patient: str
    volume: str
    slice_errors: tuple[float, ...]
    nmse: float
    distance: float | None = None
    measured: float | None = None
    null: float | None = None
    false: float | None = None
    missing: float | None = None


def examine(
    source: str,
    models: Mapping[str, Arrays],
    site_name: str,
    split: str,
    *,
    oracle: str | None,
    hallucination: bool,
) -> list[Examined]:
    """Reconstruct a site's volumes with every model; runs in a worker process.

    Parameters
    ----------
    source
        Path of the resolved consortium file.
    models
        Name → named arrays.
    site_name, split
        ``test``, or ``train`` for the training patients under fixed masks.
    oracle
        Which model the others are compared with; ``None``: none.
    hallucination
        Whether errors are sorted by what the measurements could have shown.

    Raises
    ------
    DataError
        If the site's data cannot be used.
    ModelError
        If a model does not fit the consortium's network, or has diverged.
    """
    torch.set_num_threads(1)
    consortium = load_consortium(source)
    site = Site(consortium, consortium.site(site_name))
    dataset = observed_dataset(site, split)
    networks = {name: _network(site, arrays) for name, arrays in models.items()}
    found: list[Examined] = []
    for volume in dataset.volumes:
        found += _volume(site, dataset, volume, split, networks, oracle, hallucination)
    return found


def _volume(
    site: Site,
    dataset: SiteDataset,
    volume: str,
    split: str,
    networks: Mapping[str, Reconstructor],
    oracle: str | None,
    hallucination: bool,
) -> list[Examined]:
    prepared = dataset.volume(volume)
    usable = prepared.usable_slices
    images: dict[str, Image] = {}
    target = np.zeros(0, dtype=np.float32)
    for name, network in networks.items():
        images[name], target, _ = reconstruct_volume(network, dataset, volume)
    sorted_errors: dict[str, dict[str, float]] = {name: {} for name in networks}
    if hallucination:
        sorted_errors = _hallucinations(site, dataset, volume, images, target, usable)
    return [
        Examined(
            model=name,
            site=site.name,
            split=split,
            patient=prepared.patient,
            volume=volume,
            slice_errors=tuple(output_distance(image[i], target[i]) for i in usable if target[i].any()),
            nmse=output_distance(image, target),
            distance=None if oracle is None else output_distance(image, images[oracle]),
            **sorted_errors[name],
        )
        for name, image in images.items()
    ]


def _hallucinations(
    site: Site,
    dataset: SiteDataset,
    volume: str,
    images: Mapping[str, Image],
    target: Image,
    usable: Sequence[int],
) -> dict[str, dict[str, float]]:
    prepared = dataset.volume(volume)
    kspace = np.ascontiguousarray(prepared.kspace.numpy()).view(np.complex64)[..., 0]
    # All of a slice depends on the mask and the coils alone, so it is worked out once for all models.
    spaces = slice_spaces(kspace, prepared.mask.mask.numpy() > 0, usable)
    truth = _truth(site, volume)
    found: dict[str, dict[str, float]] = {}
    for name, image in images.items():
        kinds = volume_hallucination(image, target, spaces)
        found[name] = {"measured": kinds.measured, "null": kinds.null}
        if truth is not None and truth.shape == image.shape:
            score = false_structure(image, truth)
            found[name] |= {"false": score.false, "missing": score.missing}
    return found


def _truth(site: Site, volume: str) -> Image | None:
    """The noise-free object in the volume's own units, where the file holds it."""
    for path in list_volumes(site_directory(site.consortium.seed, site.config, root=site.phantoms)):
        if path.stem == volume:
            return read_volume(path).truth
    return None


def _network(site: Site, arrays: Arrays) -> Reconstructor:
    network = build_reconstructor(site.consortium.model, seed=0)
    network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    return network
