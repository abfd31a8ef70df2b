"""Reconstructors are fastMRI's networks, seeded, and refuse what those would get silently wrong."""

from __future__ import annotations

from collections.abc import Callable

import fastmri
import pytest
import torch
from fastmri.data.transforms import center_crop
from fastmri.models import Unet, VarNet

from mri.losses import reconstruction_loss
from mri.reconstructors import (
    Reconstructor,
    VarNetReconstructor,
    build_reconstructor,
    zero_filled_image,
)
from reconsent.config import ReconstructorConfig
from reconsent.errors import ModelError

SMALL = ReconstructorConfig(cascades=2, channels=4, pools=2, sensitivity_channels=2, sensitivity_pools=2)
SMALL_UNET = SMALL.model_copy(update={"name": "unet"})
LOW = 4


def _batch(
    rows: int = 32, columns: int = 32, coils: int = 3, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    line = torch.zeros(columns, dtype=torch.bool)
    line[::4] = True
    start = (columns - LOW + 1) // 2
    line[start : start + LOW] = True
    kspace = torch.randn(2, coils, rows, columns, 2, dtype=dtype, generator=generator)
    mask = line.view(1, 1, 1, columns, 1).expand(2, 1, 1, columns, 1)
    return kspace * mask, mask


def _fastmri_twin(model: Reconstructor, config: ReconstructorConfig) -> VarNet:
    twin = VarNet(
        num_cascades=config.cascades,
        sens_chans=config.sensitivity_channels,
        sens_pools=config.sensitivity_pools,
        chans=config.channels,
        pools=config.pools,
    )
    twin.load_state_dict(model.network.state_dict())
    return twin


@pytest.mark.parametrize("shape", [(32, 32), (48, 40), (37, 51)])
def test_varnet_is_fastmris(shape: tuple[int, int]) -> None:
    """Output and every gradient equal those of fastmri.models.VarNet with the same parameters."""
    model = build_reconstructor(SMALL, seed=1)
    assert isinstance(model, VarNetReconstructor)
    twin = _fastmri_twin(model, SMALL).double()
    model.double()
    with torch.no_grad():
        for network in (model.network, twin):
            for position, cascade in enumerate(network.cascades):
                cascade.dc_weight.fill_(0.6 + 0.1 * position)
    kspace, mask = _batch(*shape, dtype=torch.float64)
    crop = (shape[0] - 5, shape[1] - 2)
    output = model(kspace, mask, LOW, crop)
    expected = center_crop(twin(kspace, mask, LOW), crop)
    torch.testing.assert_close(output, expected)
    target = torch.rand(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(
        torch.autograd.grad(
            reconstruction_loss(output, target, torch.ones(2), l1_weight=0.1), model.parameters()
        ),
        torch.autograd.grad(
            reconstruction_loss(expected, target, torch.ones(2), l1_weight=0.1), twin.parameters()
        ),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-10)


def test_single_precision_is_close_to_fastmris() -> None:
    """In single precision, too, the image is fastMRI's to rounding."""
    model = build_reconstructor(SMALL, seed=1)
    kspace, mask = _batch()
    with torch.no_grad():
        expected = _fastmri_twin(model, SMALL)(kspace, mask, LOW)
        output = model(kspace, mask, LOW, (32, 32))
    assert (output - expected).abs().max() < 1e-4 * expected.max()


def test_unet_is_fastmris_between_normalisation_and_its_inverse() -> None:
    """The U-Net sees the normalised zero-filled image, and its output is scaled back."""
    model = build_reconstructor(SMALL_UNET, seed=1)
    twin = Unet(in_chans=1, out_chans=1, chans=4, num_pool_layers=2)
    twin.load_state_dict(model.network.state_dict())
    kspace, mask = _batch()
    output = model(kspace, mask, LOW, (28, 30))
    for sample in range(2):
        image = center_crop(fastmri.rss(fastmri.complex_abs(fastmri.ifft2c(kspace[sample]))), (28, 30))
        mean, deviation = image.mean(), image.std()
        expected = twin(((image - mean) / deviation)[None, None])[0, 0] * deviation + mean
        torch.testing.assert_close(output[sample], expected, rtol=1e-4, atol=1e-5)


def test_papers_varnet_has_its_size() -> None:
    """12 cascades of 18 channels with fastMRI's other defaults are 29.9 million parameters."""
    config = ReconstructorConfig(
        cascades=12, channels=18, pools=4, sensitivity_channels=8, sensitivity_pools=4
    )
    with torch.device("meta"):
        assert round(sum(p.numel() for p in VarNetReconstructor(config).parameters()) / 1e6, 1) == 29.9


@pytest.mark.parametrize("config", [SMALL, SMALL_UNET])
def test_seed_alone_decides_and_global_generator_is_untouched(config: ReconstructorConfig) -> None:
    """One seed gives one set of parameters, another a different one, and torch's generator stays."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = build_reconstructor(config, seed=7).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    again = build_reconstructor(config, seed=7).state_dict()
    other = build_reconstructor(config, seed=8).state_dict()
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("config", [SMALL, SMALL_UNET])
def test_output_scales_with_its_input(config: ReconstructorConfig) -> None:
    """Both networks are equivariant to the units of k-space."""
    model = build_reconstructor(config, seed=0)
    kspace, mask = _batch()
    with torch.no_grad():
        one, other = model(kspace, mask, LOW, (32, 32)), model(kspace * 1024, mask, LOW, (32, 32))
    torch.testing.assert_close(one * 1024, other, rtol=1e-3, atol=1e-3 * float(other.max()))


def test_nothing_but_the_measured_phase_encodes_matters_to_the_image() -> None:
    """A batch gives the same images as its samples one by one."""
    model = build_reconstructor(SMALL, seed=0).double()
    kspace, mask = _batch(dtype=torch.float64)
    together = model(kspace, mask, LOW, (32, 32))
    for i in range(2):
        torch.testing.assert_close(model(kspace[i : i + 1], mask[i : i + 1], LOW, (32, 32))[0], together[i])


def test_zero_filled_image_is_fastmris() -> None:
    """The zero-filled image is fastMRI's cropped root sum of squares."""
    kspace, _ = _batch()
    expected = center_crop(fastmri.rss(fastmri.complex_abs(fastmri.ifft2c(kspace)), dim=1), (20, 30))
    torch.testing.assert_close(zero_filled_image(kspace, (20, 30)), expected)


def _zero_coil(kspace: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, object]:
    kspace = kspace.clone()
    kspace[1, 2] = 0
    return kspace, mask, LOW


GUARDS: dict[str, Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor, object]]] = {
    "Coil 2 of sample 1": _zero_coil,
    "every phase encode": lambda k, m: (k, torch.ones_like(m), LOW),
    "two-dimensional": lambda k, m: (k, m.expand(2, 1, 32, 32, 1), LOW),
    "must be torch.bool": lambda k, m: (k, m.float(), LOW),
    "central phase encodes": lambda k, m: (k, m, LOW + 4),
    "num_low_frequencies is 1": lambda k, m: (k, m, 1),
    "num_low_frequencies is a Tensor": lambda k, m: (k, m, torch.tensor([4, 4])),
    "real and imaginary": lambda k, m: (k[..., 0], m, LOW),
    "not finite": lambda k, m: (torch.where(m, k * float("inf"), k), m, LOW),
}


@pytest.mark.parametrize("words", GUARDS)
@pytest.mark.parametrize("config", [SMALL, SMALL_UNET])
def test_inputs_that_would_go_wrong_silently_are_refused(config: ReconstructorConfig, words: str) -> None:
    """Each input that fastMRI turns into NaN or a wrong image is refused with its reason."""
    model = build_reconstructor(config, seed=0)
    kspace, mask, low = GUARDS[words](*_batch())
    with pytest.raises(ModelError, match=words):
        model(kspace, mask, low, (32, 32))


def test_without_the_guard_a_silent_coil_is_nan() -> None:
    """The guard against silent coils guards against something: fastMRI's VarNet gives NaN."""
    kspace, mask, _ = _zero_coil(*_batch())
    twin = _fastmri_twin(build_reconstructor(SMALL, seed=0), SMALL)
    assert torch.isnan(twin(kspace, mask, LOW)).any()


@pytest.mark.parametrize(
    ("config", "size", "crop"),
    [
        (SMALL.model_copy(update={"pools": 4}), 16, (16, 16)),
        (SMALL.model_copy(update={"sensitivity_pools": 4}), 16, (16, 16)),
        (SMALL_UNET.model_copy(update={"pools": 4}), 64, (24, 64)),
    ],
)
def test_images_too_small_for_the_pools_are_refused(
    config: ReconstructorConfig, size: int, crop: tuple[int, int]
) -> None:
    """An image that pooling would shrink to one pixel is refused."""
    with pytest.raises(ModelError, match="too small"):
        build_reconstructor(config, seed=0)(*_batch(size, size), LOW, crop)


def test_crop_larger_than_the_image_is_refused() -> None:
    """A crop that does not fit is refused."""
    with pytest.raises(ModelError, match="does not fit"):
        build_reconstructor(SMALL, seed=0)(*_batch(), LOW, (33, 32))


def test_diverged_parameters_are_named() -> None:
    """NaN in the parameters is reported as divergence, not returned as an image."""
    model = build_reconstructor(SMALL, seed=0)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="diverged"):
        model(*_batch(), LOW, (32, 32))
