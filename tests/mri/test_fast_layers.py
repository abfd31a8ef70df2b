"""The fast layers compute what torch's do, forwards and backwards, in either memory layout."""

from __future__ import annotations

import pytest
import torch
from fastmri.models import Unet
from torch import nn

from mri.fast_layers import NormalisedLeakyReLU, use_fast_layers


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 4, 16, 16), (3, 8, 5, 7), (1, 64, 2, 2), (2, 130, 4, 6)])
def test_equals_instance_norm_and_leaky_relu(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    """Output and gradient equal those of torch's two layers."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, generator=generator) * 3 + 1
    weight = torch.randn(shape, dtype=torch.float64, generator=generator)
    reference = nn.Sequential(nn.InstanceNorm2d(shape[1]), nn.LeakyReLU(0.2))
    results = []
    for layer in (NormalisedLeakyReLU(1e-5, 0.2), reference):
        start = x.clone(memory_format=layout).requires_grad_()
        output = layer(start)
        (gradient,) = torch.autograd.grad((output * weight).sum(), start)
        results.append((output, gradient))
    torch.testing.assert_close(results[0], results[1])


def test_derivative_is_that_of_finite_differences() -> None:
    """The hand-written derivative passes torch's numerical check."""
    x = torch.randn(2, 3, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(NormalisedLeakyReLU(1e-5, 0.2), (x.requires_grad_(),))


def test_network_keeps_its_parameters_and_its_function() -> None:
    """A converted fastMRI U-Net has the same parameter names, values, output and gradients."""
    torch.manual_seed(0)
    plain = Unet(in_chans=2, out_chans=2, chans=4, num_pool_layers=2).double()
    fast = Unet(in_chans=2, out_chans=2, chans=4, num_pool_layers=2).double()
    fast.load_state_dict(plain.state_dict())
    use_fast_layers(fast)
    assert not any(isinstance(module, nn.InstanceNorm2d) for module in fast.modules())
    assert list(fast.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 2, 18, 22, dtype=torch.float64)
    outputs = [network(x) for network in (fast, plain)]
    torch.testing.assert_close(outputs[0], outputs[1])
    gradients = [
        torch.autograd.grad(output.square().sum(), list(network.parameters()))
        for output, network in zip(outputs, (fast, plain), strict=True)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])
