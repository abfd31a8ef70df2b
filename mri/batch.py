"""Undersampled slices, alone and in batches a reconstructor can take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch


@dataclass(frozen=True, slots=True)
class Sample:
    """One undersampled slice, in the normalised units of its volume.

    Attributes
    ----------
    masked_kspace
        float32, ``(coils, rows, columns, 2)``: only coils with signal.
    mask
        bool, ``(1, 1, columns, 1)``.
    num_low_frequencies
        Central phase encodes in the mask.
    target
        float32, ``(crop rows, crop columns)``.
    data_range
        Largest value of the volume's target.
    volume, patient, slice
        Where the slice comes from.
    """

    masked_kspace: torch.Tensor
    mask: torch.Tensor
    num_low_frequencies: int
    target: torch.Tensor
    data_range: float
    volume: str
    patient: str
    slice: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Slices of equal shape.

    Attributes
    ----------
    masked_kspace
        float32, ``(batch, coils, rows, columns, 2)``.
    mask
        bool, ``(batch, 1, 1, columns, 1)``.
    num_low_frequencies
        Central phase encodes, the same in every mask.
    target
        float32, ``(batch, crop rows, crop columns)``.
    data_range
        float32, ``(batch,)``.
    volumes, patients, slices
        Where each slice comes from.
    """

    masked_kspace: torch.Tensor
    mask: torch.Tensor
    num_low_frequencies: int
    target: torch.Tensor
    data_range: torch.Tensor
    volumes: tuple[str, ...]
    patients: tuple[str, ...]
    slices: tuple[int, ...]

    @property
    def crop(self) -> tuple[int, int]:
        """Rows and columns of the target."""
        return self.target.shape[-2], self.target.shape[-1]

    def __len__(self) -> int:
        return self.target.shape[0]

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on ``device``; itself if they are there already."""
        if self.target.device == device:
            return self
        return replace(
            self,
            masked_kspace=self.masked_kspace.to(device),
            mask=self.mask.to(device),
            target=self.target.to(device),
            data_range=self.data_range.to(device),
        )

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Self:
        """Stack samples of equal shape and equal ``num_low_frequencies``."""
        return cls(
            masked_kspace=torch.stack([sample.masked_kspace for sample in samples]),
            mask=torch.stack([sample.mask for sample in samples]),
            num_low_frequencies=samples[0].num_low_frequencies,
            target=torch.stack([sample.target for sample in samples]),
            data_range=torch.tensor([sample.data_range for sample in samples], dtype=torch.float32),
            volumes=tuple(sample.volume for sample in samples),
            patients=tuple(sample.patient for sample in samples),
            slices=tuple(sample.slice for sample in samples),
        )
