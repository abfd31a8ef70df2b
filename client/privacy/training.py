"""Local training under differential privacy: what of it is released, and at what price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from opacus.accountants import create_accountant

from client.privacy.accounting import Mechanism, history_of
from client.privacy.gradients import VectorisedGradients, trainable, unit_gradient
from client.privacy.optimiser import UnitOptimiser
from client.training import adam
from mri.batch import Batch
from mri.dataset import SiteDataset
from mri.prepared import in_own_units
from mri.reconstructors import Reconstructor, device_of
from reconsent.config import TrainingConfig
from reconsent.errors import PrivacyError
from reconsent.privacy import PrivacyConfig
from reconsent.seeds import derive_seed
from strategies.gaussian_mechanism import clipped, noised
from strategies.noise import NoiseSource

Slices = Sequence[tuple[str, int]]


def train_privately(
    model: Reconstructor,
    dataset: SiteDataset,
    training: TrainingConfig,
    privacy: PrivacyConfig,
    mechanism: Mechanism,
    *,
    learning_rate: float,
    seed: int,
    source: NoiseSource,
) -> None:
    """Train ``model`` in place by DP-SGD with Adam: exactly the steps of ``mechanism``, no more and no fewer.

    Each step draws every unit with the same chance, independently (Poisson sampling, which the accountants
    assume), so it may be empty. No loss is reported: it would be a function of the data without noise.

    Parameters
    ----------
    model
        Its parameters are changed.
    dataset
        The site's training slices.
    training
        Batch size (slices at once), weight decay, weight of L1; its gradient clip does not apply.
    privacy
        Unit, clipping norm, slices a unit, and how gradients are taken.
    mechanism
        Noise multiplier, sample rate and steps, as they were written to the ledger.
    learning_rate
        Of Adam.
    seed
        Of the sampling masks, which depend on no data.
    source
        Of noise, of who is in a step, and of which slices of a patient.

    Raises
    ------
    PrivacyError
        If the steps taken are not those that were paid for; the model is not to be sent then.
    """
    units = dataset.units(privacy.unit)
    accountant = create_accountant(mechanism=privacy.accountant)
    optimiser = UnitOptimiser(
        adam(trainable(model), training, learning_rate),
        noise_multiplier=mechanism.noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        expected_units=mechanism.sample_rate * len(units),
        source=source,
        after_step=accountant.get_optimizer_hook_fn(mechanism.sample_rate),
    )
    device = device_of(model)
    vectorised = (
        VectorisedGradients(model, training.l1_weight)
        if privacy.gradients == "vmap" or (privacy.gradients == "auto" and device.type == "cuda")
        else None
    )
    model.train()
    for step in range(mechanism.steps):
        dataset.set_epoch(derive_seed(seed, "step", step))
        drawn = poisson_draw(len(units), mechanism.sample_rate, source)
        for index in drawn:
            chosen = _some(units[index], privacy.slices_per_unit, source)
            batches = [batch.to(device) for batch in dataset.batches_of(chosen, training.batch_size)]
            if privacy.unit == "slice":
                # A volume's units are those of its brightest slice: it would reach into all the others.
                batches = [in_own_units(batch) for batch in batches]
            _add(optimiser, model, batches, training.l1_weight, vectorised)
        optimiser.step()
    if accountant.history != history_of([mechanism]):
        raise PrivacyError(
            f"Opacus counted {accountant.history}, and {history_of([mechanism])} was paid for.",
            "This is a fault of the program: nothing of this round is sent.",
        )


def poisson_draw(units: int, sample_rate: float, source: NoiseSource) -> npt.NDArray[np.intp]:
    """Indices of the units in a step: each with the chance ``sample_rate``, independently; may be empty.

    In distribution this is what Opacus' ``UniformWithReplacementSampler`` draws. That one wants a torch
    generator, which is no cryptographic one; here who is in a step is as secret as the noise.
    """
    return np.flatnonzero(source.uniform(units) < sample_rate)


def privatise_update(
    before: Mapping[str, torch.Tensor],
    model: torch.nn.Module,
    *,
    clip: float,
    noise_multiplier: float,
    source: NoiseSource,
) -> None:
    """Clip the update, ``model`` minus ``before``, and add noise to it, in place.

    Parameters
    ----------
    before
        Parameters and buffers as the site received them.
    model
        As the site would send it.
    clip
        C, largest norm of the update over all of its numbers together.
    noise_multiplier
        σ; the noise has the deviation σC. 0 where the server adds it.
    source
        Of the noise.
    """
    after = model.state_dict()
    update = np.concatenate([(after[n] - before[n]).cpu().numpy().ravel() for n in after]).astype(np.float32)
    # What is not finite must not become an error that tells of the data: it counts as no update.
    released = clipped(update, clip) if math.isfinite(float(np.abs(update).sum())) else np.zeros_like(update)
    if noise_multiplier:
        released = noised(released, noise_multiplier * clip, source)
    start = 0
    with torch.no_grad():
        for name, tensor in after.items():
            part = torch.from_numpy(released[start : start + tensor.numel()]).view_as(tensor)
            tensor.copy_(before[name] + part.to(tensor))
            start += tensor.numel()


def _some(slices: Slices, most: int | None, source: NoiseSource) -> Slices:
    if most is None or len(slices) <= most:
        return slices
    order = np.argsort(source.uniform(len(slices)), kind="stable")
    return [slices[index] for index in sorted(order[:most])]


def _add(
    optimiser: UnitOptimiser,
    model: Reconstructor,
    batches: list[Batch],
    l1_weight: float,
    vectorised: VectorisedGradients | None,
) -> None:
    if not batches:
        return
    if vectorised is not None:
        optimiser.add(vectorised.of_units([batches]))
    else:
        optimiser.add([gradient[None] for gradient in unit_gradient(model, batches, l1_weight)])
