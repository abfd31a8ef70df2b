"""Hybrid space is an exact, unitary stand-in for fastMRI's centred transforms."""

from __future__ import annotations

import fastmri
import pytest
import torch

from mri.hybrid import (
    _phase,
    columns_to_image,
    hybrid_order,
    image_to_columns,
    root_sum_of_squares,
    to_hybrid,
)

SHAPES = [(8, 8), (7, 9), (6, 11), (15, 4), (64, 50)]


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _inner(a: torch.Tensor, b: torch.Tensor) -> complex:
    return complex(torch.vdot(a.resolve_conj().flatten(), b.resolve_conj().flatten()))


def _from_hybrid(hybrid: torch.Tensor) -> torch.Tensor:
    """Inverse, and adjoint, of :func:`to_hybrid`: centred k-space ``(..., rows, columns, 2)``."""
    rows = torch.fft.fftshift(hybrid * _phase(hybrid).conj(), dim=-1)
    values = torch.fft.fftshift(
        torch.fft.fft(torch.fft.ifftshift(rows, dim=-2), dim=-2, norm="ortho"), dim=-2
    )
    return torch.view_as_real(values)


@pytest.mark.parametrize("shape", SHAPES)
def test_image_is_fastmris(shape: tuple[int, int]) -> None:
    """Going through hybrid space gives fastMRI's centred inverse transform, for even and odd sizes."""
    kspace = _random(2, 3, *shape)
    image = torch.view_as_real(columns_to_image(to_hybrid(kspace)))
    torch.testing.assert_close(image, fastmri.ifft2c(kspace))
    torch.testing.assert_close(_from_hybrid(image_to_columns(torch.view_as_complex(image))), kspace)


@pytest.mark.parametrize("shape", SHAPES)
def test_operators_pass_the_dot_product_test(shape: tuple[int, int]) -> None:
    """⟨A x, y⟩ = ⟨x, Aᴴ y⟩ for both pairs of transforms."""
    x, y = _random(2, *shape), _random(2, *shape, seed=1)
    cx, cy = torch.view_as_complex(x), torch.view_as_complex(y)
    forward = _inner(to_hybrid(x), cy)
    assert forward == pytest.approx(_inner(cx, torch.view_as_complex(_from_hybrid(cy))))
    assert _inner(columns_to_image(cx), cy) == pytest.approx(_inner(cx, image_to_columns(cy)))


@pytest.mark.parametrize("shape", SHAPES)
def test_masking_columns_commutes_with_the_readout_transform(shape: tuple[int, int]) -> None:
    """Masking phase encodes in hybrid space is masking them in k-space."""
    kspace = _random(3, *shape)
    mask = torch.arange(shape[1]) % 3 == 1
    masked = to_hybrid(kspace * mask[:, None])
    torch.testing.assert_close(masked, to_hybrid(kspace) * hybrid_order(mask))


def test_root_sum_of_squares_has_a_gradient_at_a_zero_coil() -> None:
    """The image is fastMRI's, and its gradient is finite where one coil is zero."""
    parts = _random(1, 4, 5, 6)
    parts[0, 1] = 0
    torch.testing.assert_close(
        root_sum_of_squares(torch.view_as_complex(parts)), fastmri.rss(fastmri.complex_abs(parts), dim=1)
    )
    parts.requires_grad_()
    root_sum_of_squares(torch.view_as_complex(parts)).sum().backward()
    assert parts.grad is not None
    assert torch.isfinite(parts.grad).all()
