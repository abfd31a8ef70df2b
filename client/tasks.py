"""What a method of unlearning may ask of a site beside training on its own targets.

The leaving site's part of the cooperating methods (climb the own loss, or unlearn its targets by noisy ones),
and the remaining sites' part of distillation. Each is :func:`client.training.train_locally` with another
objective.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch

from client.training import Objective, batch_loss, train_locally
from mri.batch import Batch
from mri.dataset import SiteDataset
from reconsent.config import TrainingConfig
from reconsent.errors import RoundError
from reconsent.seeds import derive_seed
from strategies import messages as msg

TASKS = (msg.DISTIL, msg.ASCEND, msg.NOISY_LABELS)


def perform(
    model: torch.nn.Module,
    dataset: SiteDataset,
    training: TrainingConfig,
    told: Mapping[str, int | float | str | bool],
    *,
    seed: int,
    teacher: torch.nn.Module | None = None,
) -> float:
    """Carry out the task that a train message names, in place; returns the mean loss J that was seen.

    Parameters
    ----------
    model
        As received; changed.
    dataset
        The site's training slices.
    training
        Local epochs or steps, batch size, clipping, weight of L1.
    told
        The message's configuration; see :mod:`strategies.messages`.
    seed
        Of the order of slices, of the masks, and of the noise in labels.
    teacher
        The second model of the message, for ``distil``.

    Raises
    ------
    RoundError
        If the task is unknown, or lacks its teacher; or if the loss stops being finite.
    DataError
        If there is nothing to train on.
    """
    task = str(told[msg.TASK])
    rate = float(told[msg.LEARNING_RATE])
    if task == msg.ASCEND:
        return _ascend(model, dataset, training, told, rate, seed)
    if task == msg.NOISY_LABELS:
        objective = noisy_labels(training.l1_weight, float(told[msg.NOISE]), seed)
    elif task == msg.DISTIL and teacher is not None:
        objective = distillation(teacher, training.l1_weight)
    else:
        raise RoundError(
            f"The server asks for task '{task}', which this site cannot do"
            + (" without a teacher." if task == msg.DISTIL else "."),
            f"Tasks are: {', '.join(TASKS)}. Server and site run different versions?",
        )
    return train_locally(model, dataset, training, learning_rate=rate, seed=seed, objective=objective).loss


def distillation(teacher: torch.nn.Module, l1_weight: float) -> Objective:
    """The loss against the teacher's outputs in the place of the targets (Wu et al. 2022, without labels).

    Nothing of a target enters, not even its range: that of the teacher's output is taken.
    """
    teacher.eval()

    def objective(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            output = teacher(batch.masked_kspace, batch.mask, batch.num_low_frequencies, batch.crop)
        soft = dataclasses.replace(batch, target=output, data_range=output.amax(dim=(-2, -1)))
        loss = batch_loss(model, soft, l1_weight)
        return loss, loss

    return objective


def noisy_labels(l1_weight: float, noise: float, seed: int) -> Objective:
    """The loss against y + λ max(y) N(0, I), drawn anew for each batch (NL of Xue et al. 2024).

    The paper's λ = 1e-5 is in the units of fastMRI's raw images; here it is relative to the largest target of
    the volume.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "labels"))

    def objective(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = torch.randn(batch.target.shape, generator=generator).to(batch.target)
        target = batch.target + noise * batch.data_range[:, None, None] * drawn
        loss = batch_loss(model, dataclasses.replace(batch, target=target), l1_weight)
        return loss, loss

    return objective


def ascent(l1_weight: float, gamma: float) -> Objective:
    """−J + γ ‖θ‖₁, to be minimised (GA-ℓ1 of Xue et al. 2024); J itself is what is reported."""

    def objective(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        loss = batch_loss(model, batch, l1_weight)
        if gamma == 0:
            return -loss, loss
        size = torch.stack([p.abs().sum() for p in model.parameters() if p.requires_grad]).sum()
        return gamma * size - loss, loss

    return objective


def projection(model: torch.nn.Module, radius: float) -> Callable[[int], None]:
    """After each step brings ``model`` back into the ball of ``radius`` around where it is now."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    centre = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def project(_step: int) -> None:
        squares = [float(((p - c).double() ** 2).sum()) for p, c in zip(parameters, centre, strict=True)]
        far = math.sqrt(sum(squares))
        if far > radius:
            for p, c in zip(parameters, centre, strict=True):
                p.copy_(c + (radius / far) * (p - c))

    return project


def _ascend(
    model: torch.nn.Module,
    dataset: SiteDataset,
    training: TrainingConfig,
    told: Mapping[str, int | float | str | bool],
    rate: float,
    seed: int,
) -> float:
    radius, ratio = told.get(msg.RADIUS), told.get(msg.STOP_RATIO)
    momentum = told.get(msg.MOMENTUM)
    first: list[float] = []

    def enough(loss: float) -> bool:
        first.append(loss) if not first else None
        return ratio is not None and loss > float(ratio) * first[0]

    def sgd(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=rate, momentum=float(momentum or 0.0))

    return train_locally(
        model,
        dataset,
        training,
        learning_rate=rate,
        seed=seed,
        objective=ascent(training.l1_weight, float(told.get(msg.GAMMA, 0.0))),
        optimiser=None if momentum is None else sgd,
        after_step=None if radius is None else projection(model, float(radius)),
        enough=enough,
    ).loss
