"""The training loss: 1 − SSIM, as fastMRI trains VarNet, with an L1 term beside it."""

from __future__ import annotations

from functools import lru_cache

import torch

from reconsent.errors import ModelError

WINDOW = 7
K1 = 0.01
K2 = 0.03


def reconstruction_loss(
    output: torch.Tensor, target: torch.Tensor, data_range: torch.Tensor, *, l1_weight: float
) -> torch.Tensor:
    """``1 − SSIM + l1_weight · mean(|output − target| / data_range)``.

    The L1 term is relative to the data range like SSIM, so that the loss does not depend on the units
    of the image.

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

    Raises
    ------
    ModelError
        If the images are smaller than SSIM's window.
    """
    loss = 1 - structural_similarity(output, target, data_range)
    if l1_weight:
        loss = loss + l1_weight * ((output - target).abs() / data_range[:, None, None]).mean()
    return loss


def structural_similarity(
    output: torch.Tensor, target: torch.Tensor, data_range: torch.Tensor
) -> torch.Tensor:
    """Mean SSIM of a batch (Wang et al., IEEE TIP 13(4), 2004), as ``fastmri.SSIMLoss`` computes it.

    The 7×7 window is uniform, and only windows inside the image count. fastMRI convolves with the window;
    here its sums are products with banded matrices, which take a fraction of the time on a CPU.

    Parameters
    ----------
    output, target
        float32, ``(batch, rows, columns)``.
    data_range
        float32, ``(batch,)``.

    Raises
    ------
    ModelError
        If the images are smaller than the window.
    """
    rows, columns = output.shape[-2:]
    if min(rows, columns) < WINDOW:
        raise ModelError(
            f"SSIM needs images of {WINDOW}x{WINDOW} or more; these are {rows}x{columns}.",
            "Use a larger crop.",
        )
    c1 = (K1 * data_range[:, None, None]) ** 2
    c2 = (K2 * data_range[:, None, None]) ** 2
    ux, uxx, uxy = _window_means(torch.stack((output, output * output, output * target)))
    uy, uyy = _window_means(torch.stack((target, target * target)))
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    variance_x = unbiased * (uxx - ux * ux)
    variance_y = unbiased * (uyy - uy * uy)
    covariance = unbiased * (uxy - ux * uy)
    numerator = (2 * ux * uy + c1) * (2 * covariance + c2)
    denominator = (ux * ux + uy * uy + c1) * (variance_x + variance_y + c2)
    similarity: torch.Tensor = (numerator / denominator).mean()
    return similarity


def _window_means(images: torch.Tensor) -> torch.Tensor:
    """Means over all windows, ``(…, rows − 6, columns − 6)``."""
    rows = _band(images.shape[-2], images.dtype, images.device)
    columns = _band(images.shape[-1], images.dtype, images.device)
    means: torch.Tensor = rows @ (images @ columns.T)
    return means


@lru_cache(maxsize=16)
def _band(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """``(size − 6, size)``: row i is 1/7 from i to i + 6. Multiplying takes means of neighbours."""
    # Made outside of inference mode: a cached inference tensor could never be used for training.
    with torch.inference_mode(False):
        offset = torch.arange(size, device=device) - torch.arange(size - WINDOW + 1, device=device)[:, None]
        band: torch.Tensor = ((offset >= 0) & (offset < WINDOW)).to(dtype) / WINDOW
        return band
