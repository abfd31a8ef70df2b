"""The networks that turn undersampled k-space into an image: fastMRI's VarNet and U-Net, guarded.

fastMRI's modules accept inputs for which their output is NaN or silently wrong. Each such input is
refused here with a :class:`~reconsent.errors.ModelError` instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import fastmri
import torch
from fastmri.data.transforms import center_crop
from fastmri.models import Unet, VarNet
from torch import nn

from mri.fast_layers import use_fast_layers
from mri.hybrid import (
    columns_to_image,
    hybrid_order,
    image_to_columns,
    root_sum_of_squares,
    to_hybrid,
)
from mri.masks import MIN_LOW_FREQUENCIES
from reconsent.config import ReconstructorConfig
from reconsent.errors import ModelError


class Reconstructor(nn.Module, ABC):
    """A network from undersampled multi-coil k-space to a magnitude image.

    Both networks take the same input and aim at the same target, the root-sum-of-squares
    reconstruction of the fully sampled k-space, in the units of the input.
    """

    def forward(
        self,
        masked_kspace: torch.Tensor,
        mask: torch.Tensor,
        num_low_frequencies: int,
        crop: tuple[int, int],
    ) -> torch.Tensor:
        """Reconstruct a batch.

        Parameters
        ----------
        masked_kspace
            float32, ``(batch, coils, rows, columns, 2)``; zero where not acquired.
        mask
            bool, ``(batch, 1, 1, columns, 1)``: acquired phase encodes.
        num_low_frequencies
            Central phase encodes that are acquired in every mask of the batch.
        crop
            Rows and columns of the result, taken from the centre.

        Returns
        -------
        torch.Tensor
            float32, ``(batch, crop rows, crop columns)``: image magnitude.

        Raises
        ------
        ModelError
            If the input is one that fastMRI's network cannot reconstruct, or the result is not finite.
        """
        self.check(masked_kspace, mask, num_low_frequencies, crop)
        image = self._reconstruct(masked_kspace, mask, num_low_frequencies, crop)
        # One reduction: the sum is finite only if every pixel is.
        if not torch.isfinite(image.detach().sum()):
            raise ModelError(
                "The reconstruction is not finite.",
                "The network's parameters have diverged (lower the learning rate), or k-space holds NaN.",
            )
        return image

    @abstractmethod
    def _reconstruct(
        self, masked_kspace: torch.Tensor, mask: torch.Tensor, num_low_frequencies: int, crop: tuple[int, int]
    ) -> torch.Tensor:
        """Reconstruct without any check."""

    @abstractmethod
    def _smallest_level(self, shape: tuple[int, int], crop: tuple[int, int]) -> int:
        """Rows or columns, whichever are fewer, at the coarsest U-Net level."""

    def unchecked(
        self, masked_kspace: torch.Tensor, mask: torch.Tensor, num_low_frequencies: int, crop: tuple[int, int]
    ) -> torch.Tensor:
        """As :meth:`forward` for an input that was checked, without looking at values (as ``vmap`` needs)."""
        return self._reconstruct(masked_kspace, mask, num_low_frequencies, crop)

    def check(
        self, masked_kspace: torch.Tensor, mask: torch.Tensor, num_low_frequencies: int, crop: tuple[int, int]
    ) -> None:
        """Refuse an input that :meth:`forward` refuses; for parameters see there.

        Raises
        ------
        ModelError
            If the input is one that fastMRI's network cannot reconstruct.
        """
        if masked_kspace.ndim != 5 or masked_kspace.shape[-1] != 2:
            raise ModelError(
                f"k-space has the shape {tuple(masked_kspace.shape)}.",
                "It must be (batch, coils, rows, columns, 2), real and imaginary part last.",
            )
        batch, _, rows, columns, _ = masked_kspace.shape
        if mask.dtype != torch.bool or tuple(mask.shape) != (batch, 1, 1, columns, 1):
            raise ModelError(
                f"The mask is {mask.dtype} of the shape {tuple(mask.shape)}; it must be torch.bool of "
                f"the shape {(batch, 1, 1, columns, 1)}.",
                "fastMRI's networks undersample phase encodes only: two-dimensional masks give wrong "
                "images without an error.",
            )
        if not (0 < crop[0] <= rows and 0 < crop[1] <= columns):
            raise ModelError(
                f"A crop of {crop[0]}x{crop[1]} does not fit into an image of {rows}x{columns}.",
                "Use the target's rows and columns.",
            )
        if isinstance(num_low_frequencies, bool) or not isinstance(num_low_frequencies, int):
            raise ModelError(
                f"num_low_frequencies is a {type(num_low_frequencies).__name__}.",
                "Use one int for the whole batch.",
            )
        if not MIN_LOW_FREQUENCIES <= num_low_frequencies <= columns:
            raise ModelError(
                f"num_low_frequencies is {num_low_frequencies} of {columns} phase encodes; coil "
                f"sensitivities need {MIN_LOW_FREQUENCIES} or more.",
                "Raise center-fraction.",
            )
        level = self._smallest_level((rows, columns), crop)
        if level < 2:
            raise ModelError(
                f"An image of {rows}x{columns} is too small: {level} pixel(s) would be left at the coarsest "
                "U-Net level.",
                "Lower pools and sensitivity-pools, or use larger images.",
            )
        start = (columns - num_low_frequencies + 1) // 2
        lines = mask.reshape(batch, columns)
        if bool(lines.all(dim=1).any()):
            raise ModelError(
                "A mask acquires every phase encode.", "There is nothing to reconstruct; raise acceleration."
            )
        if not bool(lines[:, start : start + num_low_frequencies].all()):
            raise ModelError(
                f"A mask does not acquire the {num_low_frequencies} central phase encodes.",
                "Pass the num_low_frequencies that the mask was made with.",
            )
        # The sensitivity network sees each coil's central lines alone and divides by their image's
        # standard deviation: a coil without signal there turns the whole image into NaN.
        centre = masked_kspace[:, :, :, start : start + num_low_frequencies]
        silent = (centre == 0).all(dim=4).all(dim=3).all(dim=2)
        if bool(silent.any()):
            sample, coil = (int(i) for i in silent.nonzero()[0])
            raise ModelError(
                f"Coil {coil} of sample {sample} is zero in all central phase encodes.",
                "Drop dead coils and empty slices before reconstruction.",
            )


class VarNetReconstructor(Reconstructor):
    """End-to-end variational network (Sriram et al., MICCAI 2020), cropped to the target's size.

    Parameters
    ----------
    config
        Cascades, and channels and pools of the regulariser's and the sensitivity U-Nets.
    """

    def __init__(self, config: ReconstructorConfig) -> None:
        super().__init__()
        self.pools = max(config.pools, config.sensitivity_pools)
        self.network = VarNet(
            num_cascades=config.cascades,
            sens_chans=config.sensitivity_channels,
            sens_pools=config.sensitivity_pools,
            chans=config.channels,
            pools=config.pools,
        )
        use_fast_layers(self.network)

    def _coil_images(
        self, masked_kspace: torch.Tensor, mask: torch.Tensor, num_low_frequencies: int
    ) -> torch.Tensor:
        """Coil images of the last cascade's k-space, complex64 ``(batch, coils, rows, columns)``.

        Computes what ``VarNet.forward`` does, in hybrid space and with coil images in place of k-space as
        the state: k ← k − w M (k − k₀) − F S N(S* F⁻¹ k), Sriram et al. 2020, equation 9.
        """
        measured = to_hybrid(masked_kspace)
        acquired = hybrid_order(mask.squeeze(-1))
        maps = self._sensitivities(measured, num_low_frequencies)
        images = columns_to_image(measured)
        for cascade in self.network.cascades:
            residual = torch.where(acquired, image_to_columns(images) - measured, 0)
            combined = (maps.conj() * images).sum(dim=1, keepdim=True)
            correction = torch.view_as_complex(cascade.model(torch.view_as_real(combined)))
            images = images - columns_to_image(residual) * cascade.dc_weight - correction * maps
        return images

    def _sensitivities(self, measured: torch.Tensor, num_low_frequencies: int) -> torch.Tensor:
        """Coil sensitivities from the central phase encodes, complex64 ``(batch, coils, rows, columns)``."""
        batch, coils, rows, columns = measured.shape
        start = (columns - num_low_frequencies + 1) // 2
        centre = torch.zeros(columns, dtype=measured.real.dtype, device=measured.device)
        centre[start : start + num_low_frequencies] = 1
        images = columns_to_image(measured * hybrid_order(centre))
        single = torch.view_as_real(images.view(batch * coils, 1, rows, columns))
        maps = torch.view_as_complex(self.network.sens_net.norm_unet(single)).view_as(images)
        return maps / root_sum_of_squares(maps).unsqueeze(1)

    def _reconstruct(
        self, masked_kspace: torch.Tensor, mask: torch.Tensor, num_low_frequencies: int, crop: tuple[int, int]
    ) -> torch.Tensor:
        images = self._coil_images(masked_kspace, mask, num_low_frequencies)
        # Cropped before the coils are combined: the same image for less work.
        return root_sum_of_squares(center_crop(images, crop))

    def _smallest_level(self, shape: tuple[int, int], crop: tuple[int, int]) -> int:  # noqa: ARG002
        # NormUnet pads to multiples of 16.
        return (-(-min(shape) // 16) * 16) >> self.pools


class UnetReconstructor(Reconstructor):
    """U-Net on the zero-filled root-sum-of-squares image (Zbontar et al. 2018, section 6).

    The image is shifted and scaled to mean 0 and standard deviation 1, as fastMRI does, and the
    network's output is scaled back, so that its target is the same as VarNet's. fastMRI's clamp to
    six standard deviations is left out: it would cut bright tissue off in the output.

    Parameters
    ----------
    config
        Channels and pools; cascades and the sensitivity network's settings do not apply.
    """

    def __init__(self, config: ReconstructorConfig) -> None:
        super().__init__()
        self.pools = config.pools
        self.network = Unet(in_chans=1, out_chans=1, chans=config.channels, num_pool_layers=config.pools)
        use_fast_layers(self.network)

    def _reconstruct(
        self,
        masked_kspace: torch.Tensor,
        mask: torch.Tensor,  # noqa: ARG002
        num_low_frequencies: int,  # noqa: ARG002
        crop: tuple[int, int],
    ) -> torch.Tensor:
        zero_filled = zero_filled_image(masked_kspace, crop)
        mean = zero_filled.mean(dim=(1, 2), keepdim=True)
        deviation = zero_filled.std(dim=(1, 2), keepdim=True)
        normalised = (zero_filled - mean) / (deviation + 1e-11)
        output: torch.Tensor = self.network(normalised.unsqueeze(1)).squeeze(1)
        return output * deviation + mean

    def _smallest_level(self, shape: tuple[int, int], crop: tuple[int, int]) -> int:  # noqa: ARG002
        return min(crop) >> self.pools


def build_reconstructor(config: ReconstructorConfig, *, seed: int) -> Reconstructor:
    """Build a network with parameters drawn from ``seed``; torch's global generator is left as it was.

    Raises
    ------
    ModelError
        If the network does not fit into memory.
    """
    # A context of its own: sites of a simulation share one process and its generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return VarNetReconstructor(config) if config.name == "varnet" else UnetReconstructor(config)
        except (RuntimeError, MemoryError) as error:
            raise ModelError(
                f"A {config.name} of {config.channels} channels and {config.pools} pools cannot be built: "
                f"{error}.",
                "Lower channels, pools or cascades.",
            ) from None


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of a model are; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def zero_filled_image(masked_kspace: torch.Tensor, crop: tuple[int, int]) -> torch.Tensor:
    """Root sum of squares of the coil images of zero-filled k-space: the reconstruction without a network.

    Parameters
    ----------
    masked_kspace
        float32, ``(..., coils, rows, columns, 2)``.
    crop
        Rows and columns of the result, taken from the centre.

    Returns
    -------
    torch.Tensor
        float32, ``(..., crop rows, crop columns)``.
    """
    images = torch.view_as_complex(fastmri.ifft2c(masked_kspace))
    return root_sum_of_squares(center_crop(images, crop))
