"""A reconstructor as one TorchScript file, which runs without Reconsent and without fastMRI."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from fastmri import ifft2c, rss_complex
from fastmri.data.transforms import center_crop
from fastmri.models import Unet, VarNet
from torch import nn

from mri.reconstructors import build_reconstructor
from reconsent.config import ReconstructorConfig
from reconsent.errors import ModelError

ABOUT = "reconsent.json"
"""Name of the description inside of the file (``_extra_files`` of ``torch.jit.load``)."""


class _ScriptedVarNet(nn.Module):
    def __init__(self, network: VarNet) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        masked_kspace: torch.Tensor,
        mask: torch.Tensor,
        num_low_frequencies: int,
        rows: int,
        columns: int,
    ) -> torch.Tensor:
        image: torch.Tensor = self.network(masked_kspace, mask, num_low_frequencies)
        top, left = (image.shape[-2] - rows) // 2, (image.shape[-1] - columns) // 2
        return image[:, top : top + rows, left : left + columns]


class _ScriptedUnet(nn.Module):
    def __init__(self, network: Unet) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        masked_kspace: torch.Tensor,
        mask: torch.Tensor,  # noqa: ARG002 - both reconstructors are called alike
        num_low_frequencies: int,  # noqa: ARG002
        rows: int,
        columns: int,
    ) -> torch.Tensor:
        whole = rss_complex(ifft2c(masked_kspace), dim=1)
        image = center_crop(whole, (rows, columns))
        mean = image.mean(dim=(1, 2), keepdim=True)
        deviation = image.std(dim=(1, 2), keepdim=True)
        normalised = (image - mean) / (deviation + 1e-11)
        output: torch.Tensor = self.network(normalised.unsqueeze(1)).squeeze(1)
        scaled: torch.Tensor = output * deviation + mean
        return scaled


def torchscript(config: ReconstructorConfig, arrays: Mapping[str, np.ndarray], about: str) -> bytes:
    """The reconstructor with these parameters, as a file for ``torch.jit.load``.

    It is fastMRI's own network: training uses layers that compute the same faster, but only from Python. The
    loaded module is called with ``masked_kspace`` ``(batch, coils, rows, columns, 2)``, float32, zero where
    nothing was acquired; ``mask`` ``(batch, 1, 1, columns, 1)``, bool; ``num_low_frequencies``, the central
    phase encodes that are acquired; and rows and columns to crop to. It returns the magnitude
    ``(batch, rows, columns)``, and checks nothing.

    Parameters
    ----------
    config
        Of the network.
    arrays
        Its parameters by name, as a model version holds them.
    about
        Kept in the file under the name :data:`ABOUT`.

    Raises
    ------
    ModelError
        If the parameters are not those of this network, or it cannot be put into TorchScript.
    """
    state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    try:
        build_reconstructor(config, seed=0).load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"The parameters are not those of this {config.name}: {error}.",
            "Give the consortium file that the model was trained with.",
        ) from None
    network = {name.removeprefix("network."): value for name, value in state.items()}
    module = _network(config)
    module.network.load_state_dict(network)
    content = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated, but what replaces it fixes the number of coils and the images' size.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(torch.jit.script(module.eval()), content, _extra_files={ABOUT: about})
    except RuntimeError as error:
        raise ModelError(
            f"The {config.name} cannot be put into TorchScript: {error}.",
            "Export it as safetensors or state-dict.",
        ) from None
    return content.getvalue()


def _network(config: ReconstructorConfig) -> _ScriptedVarNet | _ScriptedUnet:
    if config.name == "varnet":
        return _ScriptedVarNet(
            VarNet(
                num_cascades=config.cascades,
                sens_chans=config.sensitivity_channels,
                sens_pools=config.sensitivity_pools,
                chans=config.channels,
                pools=config.pools,
            )
        )
    return _ScriptedUnet(Unet(in_chans=1, out_chans=1, chans=config.channels, num_pool_layers=config.pools))
