"""A volume made ready for reconstruction: normalised, with its fixed mask and its usable slices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from fastmri.data.transforms import center_crop

from mri.batch import Batch
from mri.masks import SamplingMask, make_mask
from mri.reconstructors import zero_filled_image
from mri.volume import Volume
from reconsent.config import SamplingConfig
from reconsent.errors import DataError
from reconsent.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class PreparedVolume:
    """A volume in normalised units: the brightest pixel of its zero-filled reconstruction is 1.

    Attributes
    ----------
    name, patient
        As in the volume.
    kspace
        float32, ``(slices, coils, rows, columns, 2)``, fully sampled.
    target
        float32, ``(slices, crop rows, crop columns)``.
    scale
        What to multiply normalised units by to get the volume's own. It is computed from the
        undersampled data alone, which is all there is at a real acquisition.
    data_range
        Largest value of the target.
    padding
        First and one-past-last acquired phase encode.
    mask
        The volume's fixed mask, which depends on its name alone.
    live_coils
        bool, ``(slices, coils)``: coils with signal in the central phase encodes. fastMRI's sensitivity
        network turns a slice with a silent coil into NaN.
    """

    name: str
    patient: str
    kspace: torch.Tensor
    target: torch.Tensor
    scale: float
    data_range: float
    padding: tuple[int, int]
    mask: SamplingMask
    live_coils: torch.Tensor

    @property
    def usable_slices(self) -> tuple[int, ...]:
        """Slices in which at least one coil has signal."""
        return tuple(int(i) for i in self.live_coils.any(dim=1).nonzero().flatten())

    def live_kspace(self, position: int) -> torch.Tensor:
        """k-space of a slice's coils with signal, ``(coils, rows, columns, 2)``."""
        live = self.live_coils[position]
        return self.kspace[position] if bool(live.all()) else self.kspace[position][live]

    def sample_shape(self, position: int) -> tuple[int, ...]:
        """Coils with signal, rows, columns, crop rows, crop columns: slices that agree can share a batch."""
        _, _, rows, columns, _ = self.kspace.shape
        return (int(self.live_coils[position].sum()), rows, columns, *self.target.shape[1:])


def prepare_volume(volume: Volume, sampling: SamplingConfig) -> PreparedVolume:
    """Normalise a volume and draw its fixed mask.

    Raises
    ------
    DataError
        If k-space has no signal or is not finite, or target and k-space do not belong together.
    ConfigError
        If the sampling does not suit the volume's width.
    """
    kspace = volume.kspace
    if kspace.ndim != 4 or volume.target.ndim != 3 or volume.target.shape[0] != kspace.shape[0]:
        raise DataError(
            f"Volume '{volume.name}' has k-space of the shape {kspace.shape} and a target of the shape "
            f"{volume.target.shape}.",
            "They must be (slices, coils, rows, columns) and (slices, rows, columns).",
        )
    rows, columns = kspace.shape[2:]
    seed = derive_seed(0, "fixed mask", volume.name)
    mask = make_mask(sampling, columns, seed=seed, padding=volume.padding)
    full = torch.view_as_real(torch.from_numpy(np.ascontiguousarray(kspace, dtype=np.complex64)))
    # Some fastMRI volumes are narrower than their target; its own modules crop the target, too.
    crop = (min(volume.target.shape[1], rows), min(volume.target.shape[2], columns))
    line = mask.mask.view(1, 1, -1, 1)
    # Slice by slice: the coil images of a whole volume may not fit into memory a second time.
    scale = max(float(zero_filled_image(slice_ * line, crop).max()) for slice_ in full)
    maximum = float(volume.target.max())
    if not (np.isfinite(scale) and np.isfinite(maximum)):
        raise DataError(f"Volume '{volume.name}' holds NaN or infinity.", "Export it again.")
    if scale <= 0 or maximum <= 0:
        raise DataError(f"Volume '{volume.name}' has no signal.", "Leave it out.")
    start = (columns - mask.num_low_frequencies + 1) // 2
    centre = full[:, :, :, start : start + mask.num_low_frequencies]
    target = torch.from_numpy(np.ascontiguousarray(volume.target, dtype=np.float32))
    return PreparedVolume(
        name=volume.name,
        patient=volume.patient,
        kspace=full / scale,
        target=center_crop(target, crop) / scale,
        scale=scale,
        data_range=maximum / scale,
        padding=volume.padding,
        mask=mask,
        live_coils=(centre != 0).flatten(2).any(dim=2),
    )


def in_own_units(batch: Batch) -> Batch:
    """The same slices, each scaled by itself as a volume is: nothing of a slice depends on its neighbours.

    A slice without a target gets a data range of 0, hence a loss that is not finite.
    """
    brightest = zero_filled_image(batch.masked_kspace, batch.crop).amax(dim=(-2, -1))
    target = batch.target / brightest[:, None, None]
    return replace(
        batch,
        masked_kspace=batch.masked_kspace / brightest[:, None, None, None, None],
        target=target,
        data_range=target.amax(dim=(-2, -1)),
    )
