"""The training loss: 1 − SSIM, as fastMRI trains VarNet, with an L1 term beside it."""

from __future__ import annotations

import fastmri
import torch

_SSIM = fastmri.SSIMLoss()


def reconstruction_loss(
    output: torch.Tensor, target: torch.Tensor, data_range: torch.Tensor, *, l1_weight: float
) -> torch.Tensor:
    """``1 − SSIM + l1_weight · mean(|output − target| / data_range)``.

    The L1 term is relative to the data range like SSIM, so that the loss does not depend on the units of the
    image.

    Parameters
    ----------
    output, target
        float32, ``(batch, rows, columns)``, in the same units.
    data_range
        float32, ``(batch,)``: largest value of each image's volume.
    l1_weight
        Weight of the L1 term; 0 leaves fastMRI's loss.

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    loss: torch.Tensor = _SSIM.to(output.device)(output.unsqueeze(1), target.unsqueeze(1), data_range)
    if l1_weight:
        loss = loss + l1_weight * ((output - target).abs() / data_range[:, None, None]).mean()
    return loss
