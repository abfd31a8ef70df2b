"""Local training of a reconstructor on one site's data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from mri.batch import Batch
from mri.dataset import SiteDataset
from mri.losses import reconstruction_loss
from mri.reconstructors import device_of
from reconsent.config import TrainingConfig
from reconsent.errors import DataError, RoundError
from reconsent.seeds import derive_seed

Objective = Callable[[torch.nn.Module, Batch], tuple[torch.Tensor, torch.Tensor]]
"""Of a model and a batch: the scalar that is minimised, and the loss that is reported."""

OptimiserFactory = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What local training did.

    Attributes
    ----------
    loss
        Mean loss over the slices seen, dimensionless.
    steps
        Optimiser steps taken.
    """

    loss: float
    steps: int


def train_locally(
    model: torch.nn.Module,
    dataset: SiteDataset,
    training: TrainingConfig,
    *,
    learning_rate: float,
    seed: int,
    after_step: Callable[[int], None] | None = None,
    objective: Objective | None = None,
    optimiser: OptimiserFactory | None = None,
    enough: Callable[[float], bool] | None = None,
) -> TrainingResult:
    """Train ``model`` in place with Adam (AdamW if there is weight decay) on 1 − SSIM + weighted L1.

    The optimiser's state is fresh in each call, as is usual in federated averaging. The same arguments give
    the same parameters bit for bit, given the same number of threads.

    Parameters
    ----------
    model
        Reconstructor; its parameters are changed. Batches are moved to where it is.
    dataset
        The site's training slices.
    training
        Epochs or steps, batch size, weight decay, clipping, weight of L1.
    learning_rate
        Of Adam in this round.
    seed
        Of the order of slices and of the sampling masks.
    after_step
        Called with the number of steps taken after each; it may evaluate the model.
    objective
        What is minimised instead of the loss, and the loss to be reported.
    optimiser
        Makes another optimiser of the parameters.
    enough
        Called with the loss of each batch before its step; training ends when it says so.

    Raises
    ------
    RoundError
        If the loss stops being finite; the model is not to be sent then.
    DataError
        If there is nothing to train on.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    stepper = adam(parameters, training, learning_rate) if optimiser is None else optimiser(parameters)
    model.train()
    total, seen, steps = 0.0, 0, 0
    device = device_of(model)
    for batch in (each.to(device) for each in _batches(dataset, training, seed)):
        stepper.zero_grad(set_to_none=True)
        if objective is None:
            loss = batch_loss(model, batch, training.l1_weight)
            value = float(loss.detach())
        else:
            loss, seen_loss = objective(model, batch)
            value = float(seen_loss.detach())
        if not math.isfinite(value):
            raise RoundError(
                f"The training loss became {value} at step {steps + 1}.",
                "Lower the learning rate, or check the site's data with `reconsent data check`.",
            )
        if enough is not None and enough(value):
            break
        loss.backward()  # type: ignore[no-untyped-call]
        if training.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, training.gradient_clip)
        stepper.step()
        total += value * len(batch)
        seen += len(batch)
        steps += 1
        if after_step is not None:
            after_step(steps)
            model.train()
    return TrainingResult(total / max(seen, 1), steps)


def adam(
    parameters: list[torch.nn.Parameter], training: TrainingConfig, learning_rate: float
) -> torch.optim.Optimizer:
    """Adam with a fresh state; AdamW if there is weight decay."""
    kind = torch.optim.AdamW if training.weight_decay > 0 else torch.optim.Adam
    # Fused: one operation for all parameters. Small networks have many, of a few numbers each.
    return kind(parameters, lr=learning_rate, weight_decay=training.weight_decay, fused=True)


def batch_loss(model: torch.nn.Module, batch: Batch, l1_weight: float) -> torch.Tensor:
    """The training loss of one batch, a scalar."""
    output = model(batch.masked_kspace, batch.mask, batch.num_low_frequencies, batch.crop)
    return reconstruction_loss(output, batch.target, batch.data_range, l1_weight=l1_weight)


@torch.inference_mode()
def mean_loss(
    model: torch.nn.Module, dataset: SiteDataset, training: TrainingConfig, *, limit: int | None = None
) -> tuple[float, int]:
    """Mean loss over the first ``limit`` slices under fixed order, and how many there were."""
    model.eval()
    total, seen = 0.0, 0
    device = device_of(model)
    for batch in (each.to(device) for each in dataset.batches(training.batch_size, seed=0, shuffle=True)):
        total += float(batch_loss(model, batch, training.l1_weight)) * len(batch)
        seen += len(batch)
        if limit is not None and seen >= limit:
            break
    return total / max(seen, 1), seen


def _batches(dataset: SiteDataset, training: TrainingConfig, seed: int) -> Iterator[Batch]:
    epochs = itertools.count() if training.local_steps else range(training.local_epochs)

    def stream() -> Iterator[Batch]:
        for epoch in epochs:
            epoch_seed = derive_seed(seed, "epoch", epoch)
            dataset.set_epoch(epoch_seed)
            empty = True
            for batch in dataset.batches(training.batch_size, seed=epoch_seed):
                empty = False
                yield batch
            if empty:
                raise DataError(
                    "No slice of the training patients has any signal.",
                    "Check the site's data with `reconsent data check`.",
                )

    return itertools.islice(stream(), training.local_steps)
