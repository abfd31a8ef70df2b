"""fastMRI's U-Net blocks, computing the same function in a memory layout that CPUs convolve faster.

Small networks on a CPU spend their time in convolutions of 4 to 16 channels, which are several times
faster with channels innermost ("channels last"). torch's instance normalisation is not: it copies to
channels first and back. The layer here normalises and rectifies in place of the two, in either layout.
"""

from __future__ import annotations

from typing import Any

import torch
from fastmri.models.unet import ConvBlock, TransposeConvBlock
from torch import nn

_INNER_LOOP = 128
"""Elements to handle at once: torch's loops are slow when the innermost dimension is a few channels."""

_FEW = 40_000
"""Elements up to which torch's own layers are faster: the number of operations counts, not their work."""


class _NormalisedLeakyReLU(torch.autograd.Function):
    """leaky_relu((x − mean) / sqrt(variance + eps)) of each channel's pixels, with its derivative."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, eps: float, slope: float) -> torch.Tensor:
        rows, folds = _as_rows(x)
        pixels = x.shape[2] * x.shape[3]
        centred = rows - _per_channel_sum(rows, folds, 1 / pixels)
        variance = _per_channel_sum(centred * centred, folds, 1 / pixels)
        inverse = torch.rsqrt(variance + eps)
        normalised = centred.mul_(inverse)
        ctx.save_for_backward(normalised, inverse)
        ctx.folds, ctx.pixels, ctx.slope = folds, pixels, slope
        return _as_images(torch.nn.functional.leaky_relu(normalised, slope), x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        normalised, inverse = ctx.saved_tensors
        (gradient,) = gradients
        rows, _ = _as_rows(gradient)
        inner = torch.ops.aten.leaky_relu_backward(rows, normalised, ctx.slope, False)
        mean = _per_channel_sum(inner, ctx.folds, 1 / ctx.pixels)
        along = _per_channel_sum(inner * normalised, ctx.folds, 1 / ctx.pixels)
        result = inner.sub_(mean).addcmul_(normalised, along, value=-1).mul_(inverse)
        return _as_images(result, gradient), None, None


class NormalisedLeakyReLU(nn.Module):
    """Instance normalisation without learned scale, followed by a leaky rectifier, channels last.

    Equal to ``LeakyReLU(slope)(InstanceNorm2d(channels, eps)(x))``; has no parameters.

    Parameters
    ----------
    eps
        Added to the variance.
    slope
        Of negative values.
    """

    def __init__(self, eps: float, slope: float) -> None:
        super().__init__()
        self.eps = eps
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, channels, rows, columns)`` to the same shape."""
        if x.numel() <= _FEW:
            return normalised_leaky_relu(x, self.eps, self.slope)
        result: torch.Tensor = _NormalisedLeakyReLU.apply(x, self.eps, self.slope)
        return result


def use_fast_layers(network: nn.Module) -> None:
    """Replace normalisation and rectifier of every fastMRI U-Net block in ``network``, in place.

    Parameters, their names and the function computed stay the same.
    """
    for block in network.modules():
        if isinstance(block, ConvBlock | TransposeConvBlock):
            layers = block.layers
            for i in range(len(layers) - 1):
                norm, rectifier = layers[i], layers[i + 1]
                if isinstance(norm, nn.InstanceNorm2d) and isinstance(rectifier, nn.LeakyReLU):
                    layers[i] = NormalisedLeakyReLU(norm.eps, rectifier.negative_slope)
                    layers[i + 1] = nn.Identity()


class PlainNormalisedLeakyReLU(nn.Module):
    """The same function by torch's own operations, which ``torch.func`` can transform.

    Parameters
    ----------
    eps
        Added to the variance.
    slope
        Of negative values.
    """

    def __init__(self, eps: float, slope: float) -> None:
        super().__init__()
        self.eps = eps
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, channels, rows, columns)`` to the same shape."""
        return normalised_leaky_relu(x, self.eps, self.slope)


def normalised_leaky_relu(x: torch.Tensor, eps: float, slope: float) -> torch.Tensor:
    """Instance normalisation and leaky rectifier by torch's operations; the shape stays."""
    return nn.functional.leaky_relu(nn.functional.instance_norm(x, eps=eps), slope)


def use_plain_layers(network: nn.Module) -> None:
    """Undo :func:`use_fast_layers` in place: the same function, parameters and names."""
    for module in network.modules():
        for name, layer in module.named_children():
            if isinstance(layer, NormalisedLeakyReLU):
                setattr(module, name, PlainNormalisedLeakyReLU(layer.eps, layer.slope))


def _as_rows(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """``(batch, channels, h, w)`` to ``(batch, h w/folds, folds channels)``, a view if channels are last."""
    batch, channels, height, width = x.shape
    pixels = height * width
    folds = 1
    while folds * channels < _INNER_LOOP and pixels % (2 * folds) == 0:
        folds *= 2
    last = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    return last.reshape(batch, pixels // folds, folds * channels), folds


def _as_images(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = like.shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _per_channel_sum(rows: torch.Tensor, folds: int, factor: float) -> torch.Tensor:
    """Sum over pixels, times ``factor``, repeated for each fold: ``(batch, 1, folds channels)``."""
    batch, _, inner = rows.shape
    channels = inner // folds
    sums = rows.sum(dim=1).view(batch, folds, channels).sum(dim=1, keepdim=True).mul_(factor)
    # Half the time of torch's repeat, which this is.
    return sums.expand(batch, folds, channels).reshape(batch, 1, inner)
