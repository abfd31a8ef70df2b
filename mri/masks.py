"""Cartesian undersampling masks, made by fastMRI's own mask classes and checked before they are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from fastmri.data.subsample import create_mask_for_mask_type

from reconsent.config import SamplingConfig
from reconsent.errors import ConfigError

MIN_LOW_FREQUENCIES = 2
"""Fewest fully sampled central lines: from a single one no coil sensitivity can be estimated."""

# These classes spend the lines that the centre leaves of columns / acceleration; the plain ones add
# the centre on top of every acceleration-th line.
_EXACT = frozenset({"random", "equispaced-fraction", "magic-fraction"})


@dataclass(frozen=True, slots=True)
class SamplingMask:
    """Which phase encodes are acquired.

    Attributes
    ----------
    mask
        float32, ``(columns,)``: 1 where a phase encode is acquired, 0 elsewhere.
    num_low_frequencies
        Number of central phase encodes that are always acquired (the auto-calibration signal, ACS).
    """

    mask: torch.Tensor
    num_low_frequencies: int

    @property
    def acceleration(self) -> float:
        """Columns over acquired columns."""
        return self.mask.numel() / float(self.mask.sum())


def make_mask(
    config: SamplingConfig, columns: int, *, seed: int, padding: tuple[int, int] | None = None
) -> SamplingMask:
    """Draw one fastMRI mask.

    Parameters
    ----------
    config
        Kind of mask, acceleration and share of central lines.
    columns
        Number of phase encodes.
    seed
        Non-negative; the same seed gives the same mask.
    padding
        First and one-past-last phase encode that the scanner acquired; the columns outside are zeros
        in the file and are 0 in the mask, as in fastMRI's ``apply_mask``.

    Raises
    ------
    ConfigError
        If the centre is narrower than two lines, exceeds the lines that the acceleration allows or
        the acquired columns, or if the mask would leave nothing out.

    Notes
    -----
    The kinds are those of Zbontar et al., *fastMRI: An Open Dataset and Benchmarks for Accelerated
    MRI* (2018) and, for ``magic``, of Defazio, *Offset Sampling* (2019).
    """
    low = low_frequencies(config, columns)
    first, last = padding or (0, columns)
    start = (columns - low + 1) // 2
    if start < first or start + low > last:
        raise ConfigError(
            f"The {low} central phase encodes {start} to {start + low - 1} of {columns} are not all "
            f"acquired: the file's acquired phase encodes are {first} to {last - 1}.",
            "Lower center-fraction, or leave this file out.",
        )
    function: Any = create_mask_for_mask_type(
        config.mask.replace("-", "_"), [config.center_fraction], [config.acceleration]
    )
    # numpy's legacy generator, which fastMRI uses, takes 32-bit words.
    words = (seed & 0xFFFFFFFF, seed >> 32)
    drawn, low = function((1, columns, 2), seed=words)
    mask: torch.Tensor = drawn.reshape(columns)
    mask[:first] = 0
    mask[last:] = 0
    if bool(mask[first:last].all()):
        raise ConfigError(
            f"A '{config.mask}' mask of acceleration {config.acceleration} and center-fraction "
            f"{config.center_fraction} acquires all of {last - first} phase encodes.",
            "Raise acceleration or lower center-fraction: there is nothing to reconstruct otherwise.",
        )
    return SamplingMask(mask=mask, num_low_frequencies=int(low))


def low_frequencies(config: SamplingConfig, columns: int) -> int:
    """Number of central lines that ``config`` acquires of ``columns`` phase encodes.

    Raises
    ------
    ConfigError
        If they are too few to estimate coil sensitivities from, or more than the acceleration allows.
    """
    low = round(columns * config.center_fraction)
    if low < MIN_LOW_FREQUENCIES:
        raise ConfigError(
            f"center-fraction {config.center_fraction} of {columns} phase encodes is {low} central "
            f"line(s); at least {MIN_LOW_FREQUENCIES} are needed to estimate coil sensitivities.",
            f"Set center-fraction to {MIN_LOW_FREQUENCIES / columns:.3f} or more.",
        )
    budget = columns / config.acceleration
    # fastMRI's magic-fraction cuts the centre to the rounded budget, and fails when nothing is left.
    if config.mask in _EXACT and low >= (round(budget) if config.mask == "magic-fraction" else budget):
        raise ConfigError(
            f"center-fraction {config.center_fraction} takes {low} of {columns} phase encodes, but "
            f"acceleration {config.acceleration} allows only {budget:.1f} in all.",
            f"Lower center-fraction below {1 / config.acceleration:.3f}, or lower acceleration.",
        )
    return low
