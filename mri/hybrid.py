"""Hybrid space: image along the readout, k-space along the phase encodes.

Masks leave out whole phase encodes, so everything a reconstructor does to measured data happens along one
dimension: the readout can be transformed once and stay an image. fastMRI's centred transforms shift their
input and output by half an image each time; here the shift is folded into a phase that is applied once.
Both make no difference to the result, and take most of the time of fastMRI's transforms away.
"""

from __future__ import annotations

import math

import fastmri
import torch


def to_hybrid(kspace: torch.Tensor) -> torch.Tensor:
    """Transform centred k-space along its rows, and prepare its columns for :func:`columns_to_image`.

    Parameters
    ----------
    kspace
        float32, ``(..., rows, columns, 2)``.

    Returns
    -------
    torch.Tensor
        complex64, ``(..., rows, columns)``; columns are in the order of :func:`torch.fft.fft`.
    """
    values = torch.view_as_complex(kspace)
    rows = torch.fft.fftshift(
        torch.fft.ifft(torch.fft.ifftshift(values, dim=-2), dim=-2, norm="ortho"), dim=-2
    )
    hybrid: torch.Tensor = torch.fft.ifftshift(rows, dim=-1) * _phase(rows)
    return hybrid


def columns_to_image(hybrid: torch.Tensor) -> torch.Tensor:
    """Hybrid space to the centred image, complex64 ``(..., rows, columns)``."""
    image: torch.Tensor = torch.fft.ifft(hybrid, dim=-1, norm="ortho")
    return image


def image_to_columns(image: torch.Tensor) -> torch.Tensor:
    """Inverse, and adjoint, of :func:`columns_to_image`."""
    hybrid: torch.Tensor = torch.fft.fft(image, dim=-1, norm="ortho")
    return hybrid


def hybrid_order(columns: torch.Tensor) -> torch.Tensor:
    """Put values of centred phase encodes, ``(..., columns)``, in hybrid space's order."""
    ordered: torch.Tensor = torch.fft.ifftshift(columns, dim=-1)
    return ordered


def _phase(like: torch.Tensor) -> torch.Tensor:
    """exp(−2πi k ⌊N/2⌋ / N), N the columns of ``like``: a shift of the image by half its width."""
    columns = like.shape[-1]
    # Whole turns are taken off before the sine, which is then exact to rounding for any width.
    turns = (torch.arange(columns, device=like.device) * (columns // 2)) % columns
    angle = turns.to(torch.float64) * (-2 * math.pi / columns)
    return torch.polar(torch.ones_like(angle), angle).to(like.dtype)


def root_sum_of_squares(images: torch.Tensor) -> torch.Tensor:
    """Combine complex coil images ``(..., coils, rows, columns)`` to their magnitude.

    The square root is taken once, over coils and parts. Taken of each coil first, as VarNet does, its
    gradient would be NaN wherever a single coil is exactly zero.
    """
    magnitude: torch.Tensor = torch.sqrt(fastmri.complex_abs_sq(torch.view_as_real(images)).sum(dim=-3))
    return magnitude
