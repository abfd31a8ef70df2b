"""On which device a site computes: its own choice, never the server's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from reconsent.environment import DEVICE_VARIABLE
from reconsent.errors import ConfigError

# Who only says which device it would be must not wait for torch.
if TYPE_CHECKING:
    import torch

CPU = "cpu"
DEVICE = r"cpu|cuda(:[0-9]{1,3})?"


def chosen_device(node_config: Mapping[str, object], environment: Mapping[str, str]) -> str:
    """The device's name: ``RECONSENT_DEVICE``, else the node configuration's ``device``, else ``cpu``.

    Raises
    ------
    ConfigError
        If it is neither ``cpu`` nor ``cuda``, ``cuda:0``, …
    """
    name = str(environment.get(DEVICE_VARIABLE) or node_config.get("device") or CPU)
    if not re.fullmatch(DEVICE, name):
        raise ConfigError(
            f"'{name}' is no device that a site can compute on.",
            f"Set device, or {DEVICE_VARIABLE}, to cpu, cuda, or cuda:0 with the number of the GPU.",
        )
    return name


def usable_device(name: str) -> torch.device:
    """The device itself.

    Raises
    ------
    ConfigError
        If this machine, or its PyTorch, does not have it.
    """
    import torch

    device = torch.device(name)
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise ConfigError(
                f"The device '{name}' is not available: PyTorch sees {found} GPUs here.",
                f"Set device, or {DEVICE_VARIABLE}, to cpu; or install a driver and a PyTorch with CUDA.",
            )
    return device


def gpu_share(environment: Mapping[str, str], workers: int) -> float:
    """Share of a GPU for each of ``workers`` simulated clients at once; 0 if they compute on the CPU.

    Rounded down to what Ray counts in: otherwise the last worker would find no room.

    Raises
    ------
    ConfigError
        If the device is unknown, or not available.
    """
    if usable_device(chosen_device({}, environment)).type == CPU:
        return 0.0
    return math.floor(10_000 / workers) / 10_000
