"""Gradients of single units: exact for every parameter of the real reconstructors, where Opacus' are not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from fastmri.data.transforms import center_crop
from fastmri.losses import SSIMLoss
from fastmri.models import Unet, VarNet
from fastmri.models.varnet import NormUnet
from opacus.grad_sample import GradSampleModuleFastGradientClipping, wrap_model
from pydantic import ValidationError

from client.privacy.gradients import VectorisedGradients, trainable, unit_gradient
from mri.batch import Batch
from mri.reconstructors import Reconstructor, zero_filled_image
from reconsent.privacy import WRONG_GRADIENTS, PrivacyConfig
from tests.client.privacy.cohort import NETWORKS, UNET, VARNET, batches_of, cohort, network

L1 = 0.1
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stock(model: Reconstructor, name: str) -> torch.nn.Module:
    """fastMRI's own network with the same parameters, in double precision."""
    config = NETWORKS[name]
    twin = (
        VarNet(
            config.cascades,
            config.sensitivity_channels,
            config.sensitivity_pools,
            config.channels,
            config.pools,
        )
        if name == "varnet"
        else Unet(1, 1, config.channels, config.pools)
    )
    twin.load_state_dict(model.network.state_dict())
    return twin.double()


def in_double(batch: Batch) -> Batch:
    """The same batch in double precision."""
    return replace(
        batch,
        masked_kspace=batch.masked_kspace.double(),
        target=batch.target.double(),
        data_range=batch.data_range.double(),
    )


def reference_loss(twin: torch.nn.Module, batch: Batch, index: int) -> torch.Tensor:
    """Loss of one slice by nothing but fastMRI: its network, its SSIM, and the L1 term written out."""
    kspace, mask = batch.masked_kspace[index][None].double(), batch.mask[index][None]
    target, top = batch.target[index][None].double(), batch.data_range[index][None].double()
    if isinstance(twin, VarNet):
        output = center_crop(twin(kspace, mask, batch.num_low_frequencies), batch.crop)
    else:
        image = zero_filled_image(kspace, batch.crop)
        mean, deviation = image.mean(), image.std()
        output = twin(((image - mean) / (deviation + 1e-11))[:, None])[:, 0] * deviation + mean
    ssim = SSIMLoss().double()(output[:, None], target[:, None], top)
    return ssim + L1 * ((output - target).abs() / top[:, None, None]).mean()


@lru_cache
def reference(name: str, unit: int) -> dict[str, torch.Tensor]:
    """Gradient of one patient's mean loss: one backward a slice, each of a batch of one, added up."""
    twin = stock(network(name), name)
    batches = batches_of(unit)
    slices = sum(len(batch) for batch in batches)
    sums = {key: torch.zeros_like(p) for key, p in twin.named_parameters()}
    for batch in batches:
        for index in range(len(batch)):
            gradients = torch.autograd.grad(reference_loss(twin, batch, index), list(twin.parameters()))
            for total, gradient in zip(sums.values(), gradients, strict=True):
                total += gradient / slices
    return sums


def worst(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Largest ‖difference‖ of a parameter over its ‖gradient‖, or over 1 % of the whole gradient's."""
    whole = float(torch.stack([g.norm() for g in expected]).norm())
    return max(
        float((a.double() - b).norm() / max(float(b.norm()), 0.01 * whole))
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("name", ["unet", "varnet"])
@pytest.mark.parametrize("path", ["loop", "vmap"])
def test_every_parameter_equals_fastmris_own_gradient(name: str, path: str) -> None:
    """Of each patient and each parameter, by both ways, to 1e-5: against stock fastMRI, a slice at a time.

    In double precision: in single a pixel at a kink of the loss may fall to either side, here and there.
    """
    model = network(name).double()
    units = range(len(cohort().units("patient")))
    names = [f"network.{key}" for key in reference(name, 0)]
    assert names == [key for key, p in model.named_parameters() if p.requires_grad], "none is left out"
    patients = [[in_double(batch) for batch in batches_of(unit)] for unit in units]
    together = VectorisedGradients(model, L1).of_units(patients)
    for unit in units:
        expected = list(reference(name, unit).values())
        found = unit_gradient(model, patients[unit], L1) if path == "loop" else [g[unit] for g in together]
        moving = [float(gradient.norm()) > 0 for gradient in expected]
        assert sum(moving) > 0.9 * len(moving), "zeros would be equal to anything that is small"
        assert worst(found, expected) < TOLERANCE


@pytest.mark.parametrize("name", ["unet", "varnet"])
def test_a_unit_does_not_feel_who_shares_its_batch(name: str) -> None:
    """Nothing in the networks mixes slices: each gradient is the same alone, in pairs, or all at once."""
    model = network(name)
    (pair, *_) = batches_of(1, size=2)
    alone = [unit_gradient(model, batches_of(1, size=1), L1), unit_gradient(model, [pair], L1)]
    assert worst(alone[0], [g.double() for g in alone[1]]) < TOLERANCE
    singles = VectorisedGradients(model, L1).of(pair)
    mean = [g.mean(dim=0) for g in singles]
    assert worst(mean, [g.double() for g in alone[1]]) < TOLERANCE


def test_patient_with_two_volumes_is_one_unit() -> None:
    """All slices of a patient are one unit, over files and numbers of coils; by slice each is its own."""
    dataset = cohort()
    by_patient, by_slice = dataset.units("patient"), dataset.units("slice")
    assert [len(unit) for unit in by_patient] == [4, 2, 2]
    assert {volume for volume, _ in by_patient[0]} == {"p-0", "p-0-again"}
    assert sorted(len(unit) for unit in by_slice) == [1] * 8
    assert {batch.masked_kspace.shape[1] for batch in batches_of(0)} == {1, 2}


def test_gradients_leave_nothing_behind() -> None:
    """Neither way changes a parameter or leaves a gradient that a later step would add."""
    model = network("varnet")
    before = copy.deepcopy(model.state_dict())
    unit_gradient(model, batches_of(0), L1)
    VectorisedGradients(model, L1).of_units([batches_of(0)])
    assert all(p.grad is None for p in trainable(model))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_divergence_at_one_patient_is_no_error() -> None:
    """A network that gives NaN gives a gradient of NaN, and no message that would tell of the patient."""
    model = network("unet")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    assert not all(bool(torch.isfinite(g).all()) for g in unit_gradient(model, batches_of(0), L1))


@pytest.mark.filterwarnings("ignore")
def test_the_refused_modes_of_opacus_are_wrong() -> None:
    """Opacus takes fastMRI's NormUnet without a word: its gradients by hooks and its ghost norms are wrong.

    It gives up on expanded weights. If a later Opacus is right, the refusals may go.
    """
    torch.manual_seed(0)
    net, x, y = NormUnet(2, 1), torch.randn(2, 1, 32, 32, 2), torch.randn(2, 1, 32, 32, 2)
    parts = [
        torch.autograd.grad(((net(x[i : i + 1]) - y[i]) ** 2).sum(), list(net.parameters())) for i in (0, 1)
    ]
    exact = [torch.stack(pair) for pair in zip(*parts, strict=True)]

    def wrapped(mode: str) -> torch.nn.Module:
        how = {"max_grad_norm": 1.0} if mode == "ghost" else {}
        module: torch.nn.Module = wrap_model(
            copy.deepcopy(net), grad_sample_mode=mode, loss_reduction="sum", **how
        )
        ((module(x) - y) ** 2).sum().backward()
        return module

    by_hooks = [p.grad_sample for p in wrapped("hooks").parameters()]
    assert worst(by_hooks, [g.double() for g in exact]) > 0.1
    norms = torch.stack([g.reshape(2, -1).norm(dim=1) for g in exact]).norm(dim=0)
    ghost = wrapped("ghost")
    assert isinstance(ghost, GradSampleModuleFastGradientClipping)
    assert float((ghost.get_norm_sample() / norms - 1).abs().max()) > 100 * TOLERANCE
    with pytest.raises(RuntimeError, match="Expanded Weights"):
        wrapped("ew")


@pytest.mark.parametrize("mode", sorted(WRONG_GRADIENTS))
def test_wrong_modes_are_refused_with_the_reason(mode: str) -> None:
    """A consortium file cannot ask for gradients that would be wrong; it is told why, and what to use."""
    with pytest.raises(ValidationError, match=r"use auto, loop or vmap") as caught:
        PrivacyConfig.model_validate(
            {"mode": "sample", "noise-multiplier": 1.0, "ceiling": 8.0, "gradients": mode}
        )
    assert WRONG_GRADIENTS[mode][:30] in str(caught.value)


def test_small_networks_have_all_kinds_of_layers() -> None:
    """The networks compared have the parts that go wrong: several cascades, and maps of several coils."""
    assert VARNET.cascades > 1
    assert UNET.pools >= 1
    assert batches_of(1)[0].masked_kspace.shape[1] > 1
