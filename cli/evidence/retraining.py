"""Federated averaging in one process: oracles with other seeds, shadow models, and rounds to continue.

The very local training and averaging of a consortium, without Flower: what a simulation measures with is not
part of the protocol, and one process a model uses all cores when several are trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from client.site import Site, site_directory
from client.training import train_locally
from mri.dataset import SiteDataset
from mri.reconstructors import build_reconstructor
from reconsent.config import ConsortiumConfig, load_consortium
from reconsent.seeds import derive_seed
from strategies.schedules import scheduled
from unlearning.parameters import Arrays


def federate(
    source: str,
    sites: Sequence[str],
    *,
    rounds: int,
    salt: str = "",
    start: Arrays | None = None,
    first_round: int = 1,
    learning_rate: float | None = None,
    patients: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, np.ndarray]:
    """Train a model with some of the sites; runs in a worker process.

    Without a salt the result is the consortium's own: the same start, batches and masks, hence (up to the
    rounding of the average) the same model.

    Parameters
    ----------
    source
        Path of the resolved consortium file.
    sites
        Who trains.
    rounds
        How often.
    salt
        Changes the start and the order of everything random in the training, but not the data.
    start
        Model to begin with; ``None``: the untrained one.
    first_round
        Number of the first round, from which seeds and learning rates count.
    learning_rate
        One for all rounds; ``None``: the consortium's schedule.
    patients
        Site → training patients in place of its own.

    Returns
    -------
    Named arrays of the model.

    Raises
    ------
    RoundError
        If a training loss stops being finite.
    DataError
        If a site's data cannot be used.
    """
    torch.set_num_threads(1)
    consortium = load_consortium(source)
    network = build_reconstructor(consortium.model, seed=_initial_seed(consortium, salt))
    if start is not None:
        network.load_state_dict(_tensors(start))
    arrays = arrays_of(network)
    datasets = {name: _dataset(consortium, name, (patients or {}).get(name)) for name in sorted(sites)}
    examples = {name: len(dataset) for name, dataset in datasets.items()}
    total = sum(examples.values())
    for number in range(first_round, first_round + rounds):
        rate = training_rate(consortium, number) if learning_rate is None else learning_rate
        mean = {name: np.zeros(a.shape, dtype=np.float64) for name, a in arrays.items() if _is_float(a)}
        for name, dataset in datasets.items():
            update = site_update(consortium, name, dataset, arrays, number, rate, salt)
            for key in mean:
                mean[key] += examples[name] / total * update[key]
        arrays = {
            key: (array + mean[key]).astype(array.dtype) if key in mean else array
            for key, array in arrays.items()
        }
    return arrays


def site_update(
    consortium: ConsortiumConfig,
    site_name: str,
    dataset: SiteDataset,
    arrays: Arrays,
    number: int,
    learning_rate: float,
    salt: str = "",
) -> dict[str, np.ndarray]:
    """Update Δ of a site in round ``number`` from the model ``arrays``, by name; float arrays only."""
    network = build_reconstructor(consortium.model, seed=0)
    network.load_state_dict(_tensors(arrays))
    train_locally(
        network,
        dataset,
        consortium.training,
        learning_rate=learning_rate,
        seed=derive_seed(consortium.seed, "train", site_name, salt, number),
    )
    after = arrays_of(network)
    return {name: after[name] - array for name, array in arrays.items() if _is_float(array)}


def cached_update(source: str, site_name: str, arrays: Arrays, number: int) -> np.ndarray:
    """The update that a site returned in training round ``number`` from ``arrays``, computed again.

    Returns
    -------
    array
        float32 ``(P,)``, in the order of the model's arrays.
    """
    torch.set_num_threads(1)
    consortium = load_consortium(source)
    dataset = Site(consortium, consortium.site(site_name)).dataset("train")
    rate = training_rate(consortium, number)
    update = site_update(consortium, site_name, dataset, arrays, number, rate)
    return flattened(update)


def flattened(arrays: Arrays) -> np.ndarray:
    """Float arrays as one vector ``(P,)``."""
    return np.concatenate([array.reshape(-1) for array in arrays.values() if _is_float(array)])


def training_rate(consortium: ConsortiumConfig, number: int) -> float:
    """Learning rate of training round ``number``."""
    t = consortium.training
    return scheduled(t.schedule, t.learning_rate, t.final_learning_rate, number - 1, t.rounds)


def arrays_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """A copy of the network's arrays by name."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()}


def _dataset(consortium: ConsortiumConfig, name: str, patients: Sequence[str] | None) -> SiteDataset:
    site = Site(consortium, consortium.site(name))
    if patients is None:
        return site.without(consortium.patients_leaving(name)).dataset("train")
    return SiteDataset(
        site_directory(consortium.seed, site.config, root=site.phantoms),
        site.config.sampling,
        patients=patients,
        seed=derive_seed(consortium.seed, "masks", name),
        fresh_masks=True,
    )


def _initial_seed(consortium: ConsortiumConfig, salt: str) -> int:
    names = ("initial", salt) if salt else ("initial",)
    return derive_seed(consortium.seed, *names)


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"
