"""The loss is fastMRI's SSIM loss with a relative L1 term."""

from __future__ import annotations

import fastmri
import pytest
import torch

from mri.losses import reconstruction_loss
from reconsent.errors import ModelError


@pytest.mark.parametrize("shape", [(3, 7, 7), (2, 20, 33)])
def test_ssim_term_is_fastmris(shape: tuple[int, int, int]) -> None:
    """Value and gradient equal those of fastmri.SSIMLoss."""
    generator = torch.Generator().manual_seed(0)
    output = torch.rand(shape, dtype=torch.float64, generator=generator).requires_grad_()
    target = torch.rand(shape, dtype=torch.float64, generator=generator)
    data_range = 1 + torch.rand(shape[0], dtype=torch.float64, generator=generator)
    loss = reconstruction_loss(output, target, data_range, l1_weight=0.0)
    expected = fastmri.SSIMLoss().double()(output[:, None], target[:, None], data_range)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, output), torch.autograd.grad(expected, output))


def test_l1_term_and_invariance_to_units() -> None:
    """The L1 weight adds the mean relative difference, and units cancel out of the whole loss."""
    generator = torch.Generator().manual_seed(1)
    output, target = torch.rand(2, 3, 12, 12, generator=generator)
    data_range = torch.tensor([1.0, 2.0, 4.0])
    without, with_l1, in_other_units = (
        float(reconstruction_loss(a, b, r, l1_weight=weight))
        for a, b, r, weight in [
            (output, target, data_range, 0.0),
            (output, target, data_range, 0.5),
            (output * 1e-4, target * 1e-4, data_range * 1e-4, 0.5),
        ]
    )
    relative = sum(float((output[i] - target[i]).abs().mean() / data_range[i]) for i in range(3)) / 3
    assert with_l1 - without == pytest.approx(0.5 * relative, rel=1e-4)
    assert in_other_units == pytest.approx(with_l1, rel=1e-4)


def test_identical_images_have_no_loss_and_training_works_after_inference() -> None:
    """Zero for equal images, also with gradients after the loss was first used in inference mode."""
    image = torch.rand(1, 41, 43)
    with torch.inference_mode():
        assert float(reconstruction_loss(image, image, torch.ones(1), l1_weight=1.0)) == pytest.approx(
            0, abs=1e-6
        )
    moving = image.clone().requires_grad_()
    reconstruction_loss(moving, image + 0.1, torch.ones(1), l1_weight=0.0).backward()
    assert moving.grad is not None


def test_images_below_the_window_are_refused() -> None:
    """An image narrower than the 7×7 window is refused."""
    with pytest.raises(ModelError, match="7x7"):
        reconstruction_loss(torch.ones(1, 6, 9), torch.ones(1, 6, 9), torch.ones(1), l1_weight=0.0)
