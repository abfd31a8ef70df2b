"""Exact gradients of each unit's loss, for reconstructors that Opacus' own modes get wrong.

Opacus takes gradients of single samples by hooks on layers. fastMRI's NormUnet hands its layers permuted
tensors and VarNet folds coils into the batch; there the hooks give other numbers, and no error. So here each
unit is differentiated by itself (one backward pass each, which is also the fastest way on a CPU), or all at
once by ``torch.func.vmap`` (on a GPU). Nothing in the reconstructors mixes samples: they normalise within
each sample (instance normalisation), and the tests check it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from mri.batch import Batch
from mri.fast_layers import use_plain_layers
from mri.losses import reconstruction_loss
from mri.reconstructors import Reconstructor

Gradients = list[torch.Tensor]
"""One tensor a trainable parameter, in the order of ``model.parameters()``."""


def unit_gradient(model: Reconstructor, batches: Iterable[Batch], l1_weight: float) -> Gradients:
    """Gradient of one unit's mean loss over its slices, by backward passes over that unit alone.

    A result that is not finite is no error here, as it is in training without privacy: that one patient's
    reconstruction diverged is a fact about the patient.

    Parameters
    ----------
    model
        Reconstructor; the ``grad`` of its parameters is left empty.
    batches
        All slices of the unit, in batches of equal shape.
    l1_weight
        Weight of the L1 term of the loss.

    Returns
    -------
    Zeros if the unit has no slices.

    Raises
    ------
    ModelError
        If the reconstructor cannot take a batch.
    """
    parameters = trainable(model)
    model.zero_grad(set_to_none=True)
    slices = 0
    for batch in batches:
        arguments = (batch.masked_kspace, batch.mask, batch.num_low_frequencies, batch.crop)
        model.check(*arguments)
        output = model.unchecked(*arguments)
        loss = reconstruction_loss(output, batch.target, batch.data_range, l1_weight=l1_weight)
        (loss * len(batch)).backward()  # type: ignore[no-untyped-call]
        slices += len(batch)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.div_(slices) for p in parameters]
    model.zero_grad(set_to_none=True)
    return gradients


class VectorisedGradients:
    """Gradients of every sample of a batch at once, by ``vmap`` over ``grad`` of a functional call.

    Works on a copy of the model's structure whose layers ``vmap`` can go through; parameters are taken from
    the model at each call.

    Parameters
    ----------
    model
        Reconstructor.
    l1_weight
        Weight of the L1 term of the loss.
    """

    def __init__(self, model: Reconstructor, l1_weight: float) -> None:
        self._model = model
        self._plain = _Unchecked(copy.deepcopy(model))
        use_plain_layers(self._plain)
        self._l1_weight = l1_weight

    def of(self, batch: Batch) -> Gradients:
        """Gradients of each sample's loss, ``(batch, *parameter)`` a trainable parameter.

        Raises
        ------
        ModelError
            If the reconstructor cannot take the batch.
        """
        self._model.check(batch.masked_kspace, batch.mask, batch.num_low_frequencies, batch.crop)
        named = self._model.named_parameters()
        parameters = {f"inner.{name}": p.detach() for name, p in named if p.requires_grad}

        def loss(
            told: dict[str, torch.Tensor],
            kspace: torch.Tensor,
            mask: torch.Tensor,
            target: torch.Tensor,
            data_range: torch.Tensor,
        ) -> torch.Tensor:
            arguments = (kspace[None], mask[None], batch.num_low_frequencies, batch.crop)
            output = functional_call(self._plain, told, arguments)
            return reconstruction_loss(output, target[None], data_range[None], l1_weight=self._l1_weight)

        gradients = vmap(grad(loss), in_dims=(None, 0, 0, 0, 0))(
            parameters, batch.masked_kspace, batch.mask, batch.target, batch.data_range
        )
        return [gradients[name] for name in parameters]

    def of_units(self, units: Sequence[Sequence[Batch]]) -> Gradients:
        """Gradients of each unit's mean loss, ``(units, *parameter)`` a trainable parameter."""
        sums = [p.new_zeros((len(units), *p.shape)) for p in trainable(self._model)]
        for index, batches in enumerate(units):
            slices = sum(len(batch) for batch in batches)
            for batch in batches:
                for total, each in zip(sums, self.of(batch), strict=True):
                    total[index] += each.sum(dim=0) / slices
        return sums


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained, in their order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class _Unchecked(nn.Module):
    """A reconstructor whose forward pass is :meth:`Reconstructor.unchecked`."""

    def __init__(self, inner: Reconstructor) -> None:
        super().__init__()
        self.inner = inner

    def forward(
        self, kspace: torch.Tensor, mask: torch.Tensor, num_low_frequencies: int, crop: tuple[int, int]
    ) -> torch.Tensor:
        """As :meth:`Reconstructor.forward`."""
        return self.inner.unchecked(kspace, mask, num_low_frequencies, crop)
