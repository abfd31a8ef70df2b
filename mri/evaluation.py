"""Reconstruct a dataset's volumes under their fixed masks and measure the quality of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mri.dataset import SiteDataset
from mri.quality import Quality, volume_quality
from mri.reconstructors import Reconstructor, device_of, zero_filled_image

BATCH_SIZE = 8

Image = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class VolumeResult:
    """Quality of one reconstructed volume.

    Attributes
    ----------
    volume, patient
        Which volume, and whose.
    quality
        Of the reconstruction.
    """

    volume: str
    patient: str
    quality: Quality


def evaluate(
    model: Reconstructor,
    dataset: SiteDataset,
    *,
    batch_size: int = BATCH_SIZE,
    on_volume: Callable[[VolumeResult], None] | None = None,
) -> list[VolumeResult]:
    """Reconstruct every volume and compare it with its target.

    Parameters
    ----------
    model
        Left in the mode it was in.
    dataset
        Its fixed masks are used, whatever its ``fresh_masks``.
    batch_size
        Slices at a time.
    on_volume
        Called after each volume; for progress.

    Raises
    ------
    ModelError
        If the model cannot take the data, or has diverged.
    DataError
        If a volume cannot be used.
    """
    results = []
    for name in dataset.volumes:
        output, target, _ = reconstruct_volume(model, dataset, name, batch_size=batch_size)
        result = VolumeResult(
            volume=name,
            patient=dataset.volume(name).patient,
            quality=volume_quality(target, output),
        )
        results.append(result)
        if on_volume is not None:
            on_volume(result)
    return results


def reconstruct_volume(
    model: Reconstructor, dataset: SiteDataset, volume: str, *, batch_size: int = BATCH_SIZE
) -> tuple[Image, Image, Image]:
    """Reconstruct one volume.

    Returns
    -------
    tuple
        Output, target and zero-filled reconstruction, each float32 ``(slices, rows, columns)`` in the
        volume's own units. Slices without any signal are zero.

    Raises
    ------
    ModelError
        If the model cannot take the data, or has diverged.
    DataError
        If there is no such volume.
    """
    prepared = dataset.volume(volume)
    output = torch.zeros_like(prepared.target)
    zero_filled = torch.zeros_like(prepared.target)
    training = model.training
    device = device_of(model)
    model.eval()
    try:
        with torch.inference_mode():
            for batch in (each.to(device) for each in dataset.volume_batches(volume, batch_size)):
                places = torch.tensor(batch.slices)
                images = model(batch.masked_kspace, batch.mask, batch.num_low_frequencies, batch.crop)
                output[places] = images.cpu()
                zero_filled[places] = zero_filled_image(batch.masked_kspace, batch.crop).cpu()
    finally:
        model.train(training)
    scaled = [(image * prepared.scale).numpy() for image in (output, prepared.target, zero_filled)]
    return scaled[0], scaled[1], scaled[2]
