"""Differential privacy of a site's training: the ``[privacy]`` table of the consortium file."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from reconsent.settings import Settings

PrivacyMode = Literal["none", "sample", "site", "both"]
PrivacyUnit = Literal["patient", "slice"]

WRONG_GRADIENTS = {
    "hooks": "Opacus' hooks assume that a layer sees one contiguous input a sample. fastMRI's NormUnet "
    "permutes its input and VarNet folds coils into the batch, so these gradients are wrong without an error",
    "ghost": "ghost clipping takes norms by Opacus' hooks, which are wrong on fastMRI's NormUnet and VarNet "
    "without an error",
    "ew": "expanded weights know neither VarNet's data-consistency weight nor the layers used here",
}
"""Modes of per-sample gradients in Opacus that must not be used on these networks, and why."""


class PrivacyConfig(Settings):
    """Differential privacy of the sites' training; a site may have its own table. ``dp`` is another name.

    ``sample`` is DP-SGD: what one patient (or slice) does to a step is clipped and noised. ``site`` clips and
    noises what the whole site does to a round. ``both`` does one after the other; each has its own ε.
    """

    mode: PrivacyMode = Field(default="none", description="none, DP-SGD at the site, site-level, or both")
    unit: PrivacyUnit = Field(default="patient", description="whom DP-SGD protects as one")
    target_epsilon: float | None = Field(
        default=None, gt=0, description="ε after planned-rounds; the noise follows from it"
    )
    noise_multiplier: float | None = Field(
        default=None,
        gt=0,
        description="standard deviation of the noise over max-grad-norm, if ε is not given",
    )
    delta: float = Field(default=1e-5, gt=0, lt=1, description="δ of every ε")
    max_grad_norm: float = Field(default=1.0, gt=0, description="largest gradient norm of a unit")
    sample_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="chance of a unit to be in a step; empty: batch-size over slices",
    )
    slices_per_unit: int | None = Field(
        default=None, ge=1, description="slices drawn of a patient for a step; empty: all of them"
    )
    gradients: Literal["auto", "loop", "vmap", "hooks", "ghost", "ew"] = Field(
        default="auto",
        description="loop or vmap; auto: vmap on a GPU; the others are refused, with the reason",
    )
    accountant: Literal["rdp", "prv"] = Field(default="rdp", description="prv is tighter and slower")
    ceiling: float | None = Field(
        default=None, gt=0, description="most ε a site spends on a unit here; empty: target-epsilon"
    )
    planned_rounds: int | None = Field(
        default=None, ge=1, description="rounds that target-epsilon is for; empty: all the file asks for"
    )
    site_target_epsilon: float | None = Field(
        default=None, gt=0, description="ε of the whole site after planned-rounds"
    )
    site_noise_multiplier: float | None = Field(
        default=None, gt=0, description="standard deviation of its noise over site-clip, if ε is not given"
    )
    site_clip: float = Field(default=1.0, gt=0, description="largest norm of a site's update (site, both)")
    site_ceiling: float | None = Field(
        default=None, gt=0, description="most ε a site spends as a whole here; empty: site-target-epsilon"
    )
    noise_at: Literal["site", "server"] = Field(
        default="site", description="who adds the site-level noise; at the server it must be trusted"
    )

    @property
    def by_sample(self) -> bool:
        """Whether DP-SGD is used."""
        return self.mode in ("sample", "both")

    @property
    def by_site(self) -> bool:
        """Whether a site's update is clipped and noised."""
        return self.mode in ("site", "both")

    @property
    def most_epsilon(self) -> float:
        """Most ε of a unit; infinite if DP-SGD is not used."""
        return (self.ceiling or self.target_epsilon or float("inf")) if self.by_sample else float("inf")

    @property
    def most_site_epsilon(self) -> float:
        """Most ε of the whole site; infinite if its update is not noised."""
        most = self.site_ceiling or self.site_target_epsilon or float("inf")
        return most if self.by_site else float("inf")

    @field_validator("gradients")
    @classmethod
    def _exact(cls, value: str) -> str:
        if value in WRONG_GRADIENTS:
            raise ValueError(f"{WRONG_GRADIENTS[value]}; use auto, loop or vmap")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        kinds = (
            ("", self.by_sample, self.target_epsilon, self.noise_multiplier, self.ceiling),
            ("site-", self.by_site, self.site_target_epsilon, self.site_noise_multiplier, self.site_ceiling),
        )
        for prefix, used, target, noise, ceiling in kinds:
            if not used:
                continue
            if (target is None) == (noise is None):
                raise ValueError(
                    f"mode '{self.mode}' needs either {prefix}target-epsilon or {prefix}noise-multiplier"
                )
            if target is None and ceiling is None:
                raise ValueError(f"with {prefix}noise-multiplier, {prefix}ceiling says when a site stops")
        return self


class MayBePrivate(Settings):
    """A table with a ``privacy`` table in it, which may be written ``dp``; it is never written back so."""

    @model_validator(mode="before")
    @classmethod
    def _by_its_other_name(cls, table: Any) -> Any:
        if not isinstance(table, dict) or "dp" not in table:
            return table
        if "privacy" in table:
            raise ValueError("'dp' is another name of 'privacy', and both are given: keep one of them")
        return {"privacy" if key == "dp" else key: value for key, value in table.items()}
