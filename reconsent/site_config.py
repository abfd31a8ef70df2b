"""What the consortium file says of one site: its data or phantoms, its sampling, its privacy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from reconsent.privacy import MayBePrivate, PrivacyConfig
from reconsent.settings import Settings

Organ = Literal["brain", "knee", "abdomen", "heart", "prostate"]
Contrast = Literal["T1w", "T2w", "PDw", "PDw-FS", "T2w-FS"]


class SamplingConfig(Settings):
    """fastMRI's Cartesian undersampling at a site."""

    mask: Literal["random", "equispaced", "equispaced-fraction", "magic", "magic-fraction"] = Field(
        default="equispaced-fraction", description="which of fastMRI's masks"
    )
    acceleration: int = Field(default=6, ge=2, description="undersampling factor")
    center_fraction: float = Field(
        default=0.08, gt=0, lt=1, description="share of central phase encodes that are always acquired"
    )


class PhantomConfig(Settings):
    """Built-in phantoms for a site that brings no data of its own."""

    patients: int = Field(default=8, ge=1, description="training and test patients together")
    slices: int = Field(default=4, ge=1, description="slices a patient")
    matrix: tuple[int, int] = Field(default=(64, 64), description="rows (readout), columns (phase)")
    coils: int = Field(default=4, ge=1, le=16, description="receive coils")
    contrast: Contrast = Field(default="T2w", description="weighting of the spin echo")
    field_strength: float = Field(default=3.0, gt=0, description="tesla")
    noise: float = Field(
        default=0.01, ge=0, description="standard deviation of the image noise over the image's maximum"
    )

    fault: Literal["none", "noisy-coil", "spike", "false-stripes"] = Field(
        default="none",
        description="what is wrong here: a broken receive channel, a spike in k-space, or reference "
        "images with stripes that were never measured",
    )

    @field_validator("matrix")
    @classmethod
    def _not_too_small(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 32 or max(value) > 1024:
            raise ValueError("rows and columns must lie between 32 and 1024")
        return value


class SiteConfig(MayBePrivate):
    """A hospital: one SuperNode, one data directory, one organ."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="lower-case letters, digits, -")
    organ: Organ = Field(description="what is scanned there; a site never changes it")
    data: Path | None = Field(
        default=None,
        description="directory of fastMRI HDF5 files; relative to the consortium file. Empty: phantoms",
    )
    patients: tuple[str, ...] = Field(
        default=(), description="keep only these patients of the directory; empty: all of them"
    )
    test_fraction: float = Field(
        default=0.25, gt=0, lt=1, description="share of the site's patients held out for testing"
    )
    max_examples: int | None = Field(
        default=None,
        ge=1,
        le=2**53,
        description="most training slices it may say it has, as agreed; with more it is not let in. Empty: "
        "screening.max-examples",
    )
    sampling: SamplingConfig = SamplingConfig()
    phantom: PhantomConfig = PhantomConfig()
    first_round: int = Field(
        default=1, ge=1, description="training round in which it joins; simulations only"
    )
    last_round: int | None = Field(
        default=None, ge=1, description="last training round it takes part in; empty: all; simulations only"
    )
    privacy: PrivacyConfig | None = Field(
        default=None, description="differential privacy at this site; empty: as in the consortium's [privacy]"
    )
