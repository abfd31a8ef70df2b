"""How good a reconstruction is: fastMRI's PSNR, SSIM and NMSE of a volume, and HFEN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reconsent.errors import DataError, ModelError

Image = npt.NDArray[np.float32]

HFEN_SIZE = 15
HFEN_SIGMA = 1.5
SSIM_WINDOW = 7


@dataclass(frozen=True, slots=True)
class Quality:
    """Image quality of one volume, or the mean of several.

    Attributes
    ----------
    psnr
        Peak signal-to-noise ratio in dB; the peak is the volume's maximum. Larger is better.
    ssim
        Structural similarity, 7×7 uniform window, mean over slices; 1 is perfect.
    nmse
        Normalised mean squared error over the volume; 0 is perfect.
    hfen
        High-frequency error norm over the volume; 0 is perfect.
    """

    psnr: float
    ssim: float
    nmse: float
    hfen: float


def volume_quality(target: npt.ArrayLike, output: npt.ArrayLike) -> Quality:
    """Compare a reconstructed volume with its target, by fastMRI's conventions.

    Parameters
    ----------
    target, output
        ``(slices, rows, columns)``, magnitude, in the same units.

    Raises
    ------
    DataError
        If the shapes differ, the images are smaller than SSIM's window, or the target is empty.
    ModelError
        If the output holds NaN or infinity.

    Notes
    -----
    PSNR, SSIM and NMSE are those of ``fastmri.evaluate``. All four are unchanged when both images
    are scaled by one factor.
    """
    truth = np.asarray(target, dtype=np.float32)
    image = np.asarray(output, dtype=np.float32)
    if truth.ndim != 3 or truth.shape != image.shape:
        raise DataError(
            f"The target has the shape {truth.shape} and the reconstruction {image.shape}.",
            "Both must be (slices, rows, columns) and equal.",
        )
    if min(truth.shape[1:]) < SSIM_WINDOW:
        raise DataError(
            f"SSIM needs images of {SSIM_WINDOW}x{SSIM_WINDOW} or more; these are "
            f"{truth.shape[1]}x{truth.shape[2]}.",
            "Use a larger crop.",
        )
    if not np.isfinite(image).all():
        raise ModelError("The reconstruction holds NaN or infinity.", "The network has diverged.")
    if not (np.isfinite(truth).all() and truth.max() > 0):
        raise DataError("The target has no signal, or is not finite.", "Leave this volume out.")
    if np.array_equal(truth, image):
        return Quality(psnr=float("inf"), ssim=1.0, nmse=0.0, hfen=0.0)
    # Brings scipy.stats with it, most of a second: a training message that measures nothing goes without.
    from fastmri import evaluate as fastmri_evaluate

    return Quality(
        psnr=float(fastmri_evaluate.psnr(truth, image)),
        ssim=float(np.squeeze(fastmri_evaluate.ssim(truth, image))),
        nmse=float(fastmri_evaluate.nmse(truth, image)),
        hfen=high_frequency_error_norm(truth, image),
    )


def mean_quality(qualities: Sequence[Quality]) -> Quality:
    """Mean over volumes, each counting alike, as fastMRI reports it.

    Raises
    ------
    DataError
        If there is none.
    """
    if not qualities:
        raise DataError("There is no volume to average the quality of.", "Check the site's test data.")
    rows = np.array([(q.psnr, q.ssim, q.nmse, q.hfen) for q in qualities], dtype=np.float64)
    psnr, ssim, nmse, hfen = (float(value) for value in rows.mean(axis=0))
    return Quality(psnr=psnr, ssim=ssim, nmse=nmse, hfen=hfen)


def high_frequency_error_norm(target: npt.ArrayLike, output: npt.ArrayLike) -> float:
    """‖LoG(target − output)‖ / ‖LoG(target)‖ over a volume.

    LoG is a rotationally symmetric Laplacian of Gaussian of 15×15 pixels and a standard deviation of
    1.5 pixels (Ravishankar & Bresler, IEEE TMI 30(5), 2011, section IV-A), applied to each slice;
    outside the image is zero. An output of zeros has an error of 1.

    Parameters
    ----------
    target, output
        ``(slices, rows, columns)``.

    Raises
    ------
    DataError
        If the target has no edges at all.
    """
    truth = np.asarray(target, dtype=np.float64)
    kernel = _laplacian_of_gaussian()[None]
    from scipy.signal import oaconvolve

    edges = oaconvolve(truth, kernel, mode="same", axes=(1, 2))
    difference = oaconvolve(truth - np.asarray(output, dtype=np.float64), kernel, mode="same", axes=(1, 2))
    norm = float(np.linalg.norm(edges))
    if norm == 0:
        raise DataError("The target is constant: HFEN is not defined.", "Leave this volume out.")
    return float(np.linalg.norm(difference)) / norm


def _laplacian_of_gaussian() -> npt.NDArray[np.float64]:
    """The filter of the paper: sampled, normalised Gaussian's Laplacian, shifted to sum to zero."""
    radius = np.arange(HFEN_SIZE) - HFEN_SIZE // 2
    squared = np.add.outer(radius**2, radius**2).astype(np.float64)
    gaussian = np.exp(-squared / (2 * HFEN_SIGMA**2))
    gaussian /= gaussian.sum()
    laplacian: npt.NDArray[np.float64] = gaussian * (squared - 2 * HFEN_SIGMA**2) / HFEN_SIGMA**4
    laplacian -= laplacian.mean()
    return laplacian
