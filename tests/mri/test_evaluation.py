"""Evaluation measures whole volumes in their own units, and training improves what it measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mri.dataset import SiteDataset
from mri.evaluation import VolumeResult, evaluate, reconstruct_volume
from mri.losses import reconstruction_loss
from mri.phantoms import synthesise_volume
from mri.quality import volume_quality
from mri.reconstructors import Reconstructor, build_reconstructor
from mri.volume import Volume
from reconsent.config import PhantomConfig, ReconstructorConfig, SamplingConfig

SMALL = ReconstructorConfig(cascades=2, channels=4, pools=2, sensitivity_channels=4, sensitivity_pools=2)
SAMPLING = SamplingConfig(acceleration=4, center_fraction=0.1)
VOLUMES = [
    synthesise_volume("knee", PhantomConfig(matrix=(32, 32), coils=3, slices=4), seed=0, name=name)
    for name in ("a", "b")
]


def _dataset(*volumes: Volume, fresh_masks: bool = False) -> SiteDataset:
    return SiteDataset.from_volumes(volumes, SAMPLING, seed=0, fresh_masks=fresh_masks)


def _edited(volume: Volume, **changes: object) -> Volume:
    values = {field: getattr(volume, field) for field in Volume.__slots__}
    return Volume(**(values | changes))  # type: ignore[arg-type]


def _train(model: Reconstructor, dataset: SiteDataset, steps: int) -> list[float]:
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses: list[float] = []
    while len(losses) < steps:
        dataset.set_epoch(len(losses))
        for batch in dataset.batches(4, seed=len(losses)):
            optimiser.zero_grad()
            output = model(batch.masked_kspace, batch.mask, batch.num_low_frequencies, batch.crop)
            loss = reconstruction_loss(output, batch.target, batch.data_range, l1_weight=0.1)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", ["varnet", "unet"])
def test_thirty_steps_reduce_the_loss_and_improve_the_image(name: str) -> None:
    """Thirty steps on one patient lower the loss by a third and raise PSNR and SSIM on that patient."""
    model = build_reconstructor(SMALL.model_copy(update={"name": name}), seed=0)
    dataset = _dataset(VOLUMES[0], fresh_masks=True)
    before = evaluate(model, dataset)[0].quality
    losses = _train(model, dataset, 30)
    after = evaluate(model, dataset)[0].quality
    assert np.mean(losses[-5:]) < 0.67 * np.mean(losses[:2])
    assert after.psnr > before.psnr + 2
    assert after.ssim > before.ssim + 0.1


def test_training_is_reproducible_bit_for_bit() -> None:
    """The same seeds give the same parameters, and a whole run leaves torch's generator alone."""
    state = torch.get_rng_state()
    runs = []
    for _ in range(2):
        model = build_reconstructor(SMALL, seed=4)
        _train(model, _dataset(*VOLUMES, fresh_masks=True), 4)
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])
    assert torch.equal(state, torch.get_rng_state())


def test_results_are_the_quality_of_the_reconstruction_in_original_units() -> None:
    """The target comes back in the file's units, and evaluate reports the quality of just these arrays."""
    model = build_reconstructor(SMALL, seed=0)
    dataset = _dataset(*VOLUMES)
    seen: list[VolumeResult] = []
    results = evaluate(model, dataset, on_volume=seen.append)
    assert seen == results
    assert [(result.volume, result.patient) for result in results] == [("a", "a"), ("b", "b")]
    for volume, result in zip(VOLUMES, results, strict=True):
        output, target, zero_filled = reconstruct_volume(model, dataset, volume.name)
        np.testing.assert_allclose(target, volume.target, rtol=1e-5)
        assert output.shape == zero_filled.shape == target.shape
        assert output.dtype == np.float32
        assert result.quality == volume_quality(target, output)
        assert volume_quality(target, zero_filled).psnr > 10


def test_batch_size_and_mask_policy_do_not_change_the_result() -> None:
    """Slices are reconstructed under the volume's fixed mask, however many at a time."""
    model = build_reconstructor(SMALL, seed=0)
    one, _, _ = reconstruct_volume(model, _dataset(VOLUMES[0]), "a", batch_size=1)
    other, _, _ = reconstruct_volume(model, _dataset(VOLUMES[0], fresh_masks=True), "a", batch_size=3)
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.max()))


def test_units_of_the_file_do_not_change_the_quality() -> None:
    """k-space and target times 1000 give the same PSNR, SSIM, NMSE and HFEN."""
    model = build_reconstructor(SMALL, seed=0)
    louder = _edited(VOLUMES[0], kspace=VOLUMES[0].kspace * 1000, target=VOLUMES[0].target * 1000)
    one, other = (evaluate(model, _dataset(volume))[0].quality for volume in (VOLUMES[0], louder))
    for name in ("psnr", "ssim", "nmse", "hfen"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-3)


def test_empty_slices_are_empty_in_the_reconstruction() -> None:
    """A slice without signal comes back as zeros, and the other slices are unchanged."""
    model = build_reconstructor(SMALL, seed=0)
    kspace, target = VOLUMES[0].kspace.copy(), VOLUMES[0].target.copy()
    kspace[3] = 0
    target[3] = 0
    full, _, _ = reconstruct_volume(model, _dataset(VOLUMES[0]), "a")
    output, _, _ = reconstruct_volume(model, _dataset(_edited(VOLUMES[0], kspace=kspace, target=target)), "a")
    assert not output[3].any()
    np.testing.assert_allclose(output[:3], full[:3], rtol=1e-3, atol=1e-4 * float(full.max()))


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_gradients_of_the_model_are_left_alone(training: bool) -> None:
    """Evaluation restores the model's mode and leaves parameters that can still be trained."""
    model = build_reconstructor(SMALL, seed=0).train(training)
    evaluate(model, _dataset(VOLUMES[0]))
    assert model.training is training
    assert len(_train(model, _dataset(VOLUMES[0]), 1)) == 1
