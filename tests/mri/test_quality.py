"""Quality measures equal fastMRI's and an independent HFEN."""

from __future__ import annotations

import fastmri.evaluate as reference
import numpy as np
import pytest
from scipy.ndimage import gaussian_laplace
from scipy.signal import convolve2d

from mri.quality import Quality, high_frequency_error_norm, mean_quality, volume_quality
from reconsent.errors import DataError, ModelError

RNG = np.random.default_rng(0)
TARGET = RNG.random((3, 24, 31), dtype=np.float32) * 1e-4
OUTPUT = TARGET + 1e-5 * RNG.normal(size=TARGET.shape).astype(np.float32)


def test_psnr_ssim_nmse_are_fastmris() -> None:
    """PSNR, SSIM and NMSE equal fastmri.evaluate's functions on the same volume."""
    quality = volume_quality(TARGET, OUTPUT)
    assert quality.psnr == pytest.approx(float(reference.psnr(TARGET, OUTPUT)))
    assert quality.ssim == pytest.approx(float(reference.ssim(TARGET, OUTPUT)[0]))
    assert quality.nmse == pytest.approx(float(reference.nmse(TARGET, OUTPUT)))


def test_data_range_is_the_volumes() -> None:
    """PSNR follows its definition with the maximum of the whole volume as peak."""
    expected = 10 * np.log10(TARGET.max() ** 2 / np.mean((TARGET.astype(float) - OUTPUT) ** 2))
    assert volume_quality(TARGET, OUTPUT).psnr == pytest.approx(float(expected), rel=1e-4)


def test_hfen_is_the_papers_filter() -> None:
    """HFEN equals a slice-by-slice convolution with the 15×15 filter written out from its formula."""
    y, x = np.mgrid[-7:8, -7:8]
    gaussian = np.exp(-(x**2 + y**2) / 4.5)
    kernel = (x**2 + y**2 - 4.5) / 1.5**4 * gaussian / gaussian.sum()
    kernel -= kernel.mean()
    edges = [convolve2d(image.astype(float), kernel, mode="same") for image in TARGET]
    errors = [
        convolve2d(a.astype(float) - b, kernel, mode="same") for a, b in zip(TARGET, OUTPUT, strict=True)
    ]
    expected = np.linalg.norm(errors) / np.linalg.norm(edges)
    assert high_frequency_error_norm(TARGET, OUTPUT) == pytest.approx(expected)


def test_hfen_agrees_with_scipys_laplacian_of_gaussian() -> None:
    """HFEN is close to that of scipy's own filter, which differs in the truncated tail alone."""
    error, edges = (
        np.linalg.norm([gaussian_laplace(image.astype(float), 1.5, mode="constant") for image in volume])
        for volume in (TARGET - OUTPUT, TARGET)
    )
    assert high_frequency_error_norm(TARGET, OUTPUT) == pytest.approx(error / edges, rel=0.01)


def test_hfen_sees_blur_that_a_constant_offset_does_not_make() -> None:
    """A lost edge costs HFEN, an empty image costs exactly 1."""
    assert high_frequency_error_norm(TARGET, np.zeros_like(TARGET)) == pytest.approx(1.0)
    inside = np.zeros((1, 64, 64), np.float32)
    inside[0, 24:40, 24:40] = 1
    padded = inside.copy()
    padded[0, 10:54, 10:54] += 0.001
    assert high_frequency_error_norm(inside, padded) < 0.01


def test_units_do_not_matter() -> None:
    """All four are unchanged when target and output are scaled together."""
    one, other = volume_quality(TARGET, OUTPUT), volume_quality(TARGET * 4096, OUTPUT * 4096)
    for name in ("psnr", "ssim", "nmse", "hfen"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-4)


def test_a_perfect_reconstruction_is_perfect() -> None:
    """Equal volumes have infinite PSNR, SSIM 1 and no error, without a numerical warning."""
    assert volume_quality(TARGET, TARGET) == Quality(psnr=float("inf"), ssim=1.0, nmse=0.0, hfen=0.0)


def test_mean_counts_volumes_alike() -> None:
    """The mean is over volumes."""
    mean = mean_quality([Quality(10, 0.5, 0.2, 0.4), Quality(20, 0.7, 0.4, 0.8)])
    assert (mean.psnr, mean.ssim, mean.nmse, mean.hfen) == pytest.approx((15, 0.6, 0.3, 0.6))


def test_unusable_volumes_are_refused() -> None:
    """Different shapes, tiny images, an empty target, NaN and an empty list each have their error."""
    broken = OUTPUT.copy()
    broken[0, 0, 0] = np.nan
    for target, output, kind, words in [
        (TARGET, OUTPUT[:2], DataError, "shape"),
        (TARGET[:, :6], OUTPUT[:, :6], DataError, "7x7"),
        (TARGET * 0, OUTPUT, DataError, "no signal"),
        (TARGET, broken, ModelError, "NaN"),
    ]:
        with pytest.raises(kind, match=words):
            volume_quality(target, output)
    with pytest.raises(DataError, match="no volume"):
        mean_quality([])
    with pytest.raises(DataError, match="constant"):
        high_frequency_error_norm(np.zeros((1, 20, 20)), np.ones((1, 20, 20)))
