"""The description of a consortium: one typed schema for its TOML file, every option and every default.

Keys are written in kebab case (``local-epochs``); unknown keys are refused by name, with the nearest
valid one. See ``docs/configuration.md`` for the generated reference.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from reconsent.assessment import AssessmentConfig as AssessmentConfig
from reconsent.compliance import ComplianceConfig as ComplianceConfig
from reconsent.errors import ConfigError
from reconsent.privacy import MayBePrivate, PrivacyConfig
from reconsent.settings import Settings as Settings
from reconsent.site_config import Contrast as Contrast
from reconsent.site_config import Organ as Organ
from reconsent.site_config import PhantomConfig as PhantomConfig
from reconsent.site_config import SamplingConfig as SamplingConfig
from reconsent.site_config import SiteConfig as SiteConfig

PRESETS = Path(__file__).parent / "presets"


class ReconstructorConfig(Settings):
    """Which network, and how large. The paper's VarNet is ``cascades = 12``, ``channels = 18``."""

    name: Literal["varnet", "unet"] = Field(default="varnet", description="fastMRI's VarNet or U-Net")
    cascades: int = Field(default=3, ge=1, description="unrolled iterations (VarNet only)")
    channels: int = Field(default=8, ge=1, description="channels of the first U-Net level")
    pools: int = Field(default=3, ge=1, description="U-Net levels below the first")
    sensitivity_channels: int = Field(default=4, ge=1, description="same, coil-sensitivity U-Net")
    sensitivity_pools: int = Field(default=3, ge=1, description="levels of that U-Net")


class TrainingConfig(Settings):
    """Rounds at the server and local training at the sites."""

    rounds: int = Field(default=60, ge=1, description="training rounds")
    local_epochs: int = Field(default=2, ge=1, description="passes over the site's training slices")
    local_steps: int | None = Field(default=None, ge=1, description="optimiser steps; overrides local-epochs")
    batch_size: int = Field(default=4, ge=1, description="slices an optimiser step")
    learning_rate: float = Field(default=1e-3, gt=0, description="of Adam in the first round")
    final_learning_rate: float | None = Field(
        default=None, gt=0, description="of the last round; empty: as learning-rate"
    )
    schedule: Literal["constant", "linear", "cosine", "geometric"] = Field(
        default="constant", description="way from learning-rate to final-learning-rate over the rounds"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled (AdamW)")
    l1_weight: float = Field(default=0.0, ge=0, description="weight of the L1 term beside 1 - SSIM")
    gradient_clip: float | None = Field(default=None, gt=0, description="largest gradient norm of a step")
    evaluate_every: int = Field(default=5, ge=0, description="rounds between evaluations; 0: never")
    timeout_seconds: float = Field(default=3600.0, gt=0, description="a site's time for one round")
    join_seconds: float = Field(default=60.0, gt=0, description="how long a run waits for its sites")
    wait_seconds: float = Field(
        default=3600.0, ge=0, description="how long a run waits when fewer than min-sites are online"
    )
    min_sites: int = Field(default=1, ge=1, description="fewest replies a round may be made of")

    def times(self, effort: int) -> Self:
        """The same with ``effort`` times the local epochs or steps."""
        steps = None if self.local_steps is None else self.local_steps * effort
        return self.model_copy(update={"local_epochs": self.local_epochs * effort, "local_steps": steps})


class ScreeningConfig(Settings):
    """What a site's reply must satisfy before it is averaged."""

    max_norm_ratio: float = Field(
        default=20.0, gt=1, description="an update larger than this times the site's median is refused"
    )
    first_norm_ratio: float = Field(
        default=100.0,
        gt=1,
        description="in a site's first three rounds: an update larger than this times the other sites' "
        "median is refused; needs two others",
    )
    max_norm: float | None = Field(default=None, gt=0, description="absolute limit on an update's norm")
    max_examples: int = Field(
        default=1_000_000,
        ge=1,
        le=2**53,
        description="most training slices a site may say it has; one that says more is not let in",
    )


class ContributionConfig(Settings):
    """What the server keeps of each site's updates."""

    damping: float = Field(
        default=0.0, ge=0, lt=1, description="a of the damped specific contribution (per round)"
    )
    history_every: int = Field(
        default=1, ge=0, description="keep every k-th update beside the running sums; 0: none"
    )
    history_dtype: Literal["float32", "bfloat16"] = Field(
        default="bfloat16", description="of the kept updates; bfloat16 halves their size"
    )
    anchors: tuple[float, ...] = Field(
        default=(), description="shares of the rounds at which model and running sums are kept"
    )
    keep_rounds: int | None = Field(
        default=None, ge=1, description="remove kept updates older than the last so many rounds; empty: never"
    )
    keep_days: float | None = Field(
        default=None, gt=0, description="remove kept updates older than so many days; empty: never"
    )
    encryption: Literal["file", "env", "command", "none"] = Field(
        default="file",
        description="each site's contributions are sealed by a key of its own, wrapped by a master key from "
        "a file, from the environment's `RECONSENT_MASTER_KEY`, or by commands of a key management service",
    )
    master_key: Path | None = Field(
        default=None,
        description="file of the master key, made at first use; relative to the consortium file. Empty: "
        "`keys/master.key` in the state directory",
    )
    wrap_command: str = Field(
        default="", description="reads a key (base64) from stdin, writes it wrapped; see operations"
    )
    unwrap_command: str = Field(default="", description="the way back")

    @model_validator(mode="after")
    def _commands(self) -> Self:
        if self.encryption == "command" and not (self.wrap_command and self.unwrap_command):
            raise ValueError('encryption = "command" needs wrap-command and unwrap-command')
        return self

    @field_validator("anchors")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share < 1 for share in value):
            raise ValueError("anchors are shares of the training rounds, between 0 and 1")
        return tuple(sorted(value))


class UnlearningConfig(Settings):
    """How a withdrawn site is unlearned."""

    method: str = Field(default="cached-ascent", description="see `reconsent methods`")
    rounds_fraction: float = Field(
        default=0.1, gt=0, le=1, description="unlearning rounds over training rounds so far, rounded down"
    )
    settings: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="of the method; see `reconsent methods`"
    )


class WithdrawalConfig(Settings):
    """A withdrawal to exercise in a simulation."""

    sites: tuple[str, ...] = Field(min_length=1, description="who leaves, together")
    at_round: int | None = Field(
        default=None, ge=1, description="after this training round; empty: at the end"
    )
    cooperating: bool = Field(
        default=False, description="the sites still compute their part of the unlearning before they go"
    )
    patients: tuple[str, ...] | None = Field(
        default=None,
        description="pseudonyms of patients who leave; their site stays. For simulations only: a real site "
        "names them in its own policy",
    )

    @property
    def answering(self) -> bool:
        """Whether the sites still answer: cooperating, or staying without some of their patients."""
        return self.cooperating or bool(self.patients)


class ReturnConfig(Settings):
    """A withdrawn site that comes back in a simulation, as a newcomer."""

    sites: tuple[str, ...] = Field(min_length=1, description="who comes back, together")
    after_round: int = Field(
        ge=1, description="after this training round, those of continue-rounds counted on"
    )


class ConsortiumConfig(MayBePrivate):
    """A whole consortium: its sites, its model, and what happens to them."""

    name: str = Field(
        default="demo",
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        description="of the consortium; names the run's directory",
    )
    seed: int = Field(default=0, ge=0, description="one seed gives one result, bit for bit")
    sites: tuple[SiteConfig, ...] = Field(min_length=2)
    model: ReconstructorConfig = ReconstructorConfig()
    training: TrainingConfig = TrainingConfig()
    screening: ScreeningConfig = ScreeningConfig()
    contributions: ContributionConfig = ContributionConfig()
    unlearning: UnlearningConfig = UnlearningConfig()
    withdrawals: tuple[WithdrawalConfig, ...] = ()
    returns: tuple[ReturnConfig, ...] = ()
    continue_rounds: int = Field(default=0, ge=0, description="training rounds after the last unlearning")
    assessment: AssessmentConfig = AssessmentConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    compliance: ComplianceConfig = ComplianceConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [site.name for site in self.sites]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sites are called {', '.join(twice)}; names must differ")
        leaving: list[str] = []
        losing: list[str] = []
        for withdrawal in self.withdrawals:
            if withdrawal.patients and len(withdrawal.sites) != 1:
                raise ValueError("a withdrawal of patients names the one site that they are patients of")
            for site in withdrawal.sites:
                if site not in names:
                    near = difflib.get_close_matches(site, names, n=1)
                    hint = f"; did you mean '{near[0]}'?" if near else f"; sites are {', '.join(names)}"
                    raise ValueError(f"withdrawal of '{site}', which is no site{hint}")
                if site in (*leaving, *losing):
                    raise ValueError(f"'{site}' is withdrawn twice")
                (losing if withdrawal.patients else leaving).append(site)
            if withdrawal.at_round is not None and withdrawal.at_round > self.training.rounds:
                raise ValueError(
                    f"withdrawal at round {withdrawal.at_round}, but there are only "
                    f"{self.training.rounds} training rounds"
                )
        if len(leaving) == len(names):
            raise ValueError(
                "all sites would be withdrawn: nobody would remain to train with. "
                "Keep at least one site, or delete the model instead"
            )
        for taking in self.sites:
            last = self.training.rounds if taking.last_round is None else taking.last_round
            if not taking.first_round <= last <= self.training.rounds + self.continue_rounds:
                raise ValueError(
                    f"'{taking.name}' would take part from round {taking.first_round} to {last}, but "
                    f"training has {self.training.rounds} rounds"
                )
        if not any(own.first_round == 1 for own in self.sites if own.name not in leaving):
            raise ValueError("no site that stays takes part from round 1: set a first-round to 1")
        gone = {
            site: w.at_round or self.training.rounds
            for site in leaving
            for w in self.withdrawals
            if site in w.sites
        }
        for back in self.returns:
            for site in back.sites:
                if gone.get(site, back.after_round + 1) > back.after_round:
                    raise ValueError(
                        f"'{site}' would come back after round {back.after_round}, but does not withdraw "
                        "before"
                    )
            last = self.training.rounds + self.continue_rounds
            if back.after_round > last:
                raise ValueError(
                    f"{', '.join(back.sites)} would come back after round {back.after_round}, but there are "
                    f"only {last} rounds with those of continue-rounds"
                )
        for config in self.sites:
            own = config.privacy
            if own is not None and (self._noised_at_server(own) or self._noised_at_server(self.privacy)):
                raise ValueError(
                    f"'{config.name}' has privacy of its own, but noise at the server is for all"
                )
        remaining = len(names) - len(leaving)
        if self.training.min_sites > remaining:
            raise ValueError(
                f"training.min-sites is {self.training.min_sites}, but only {remaining} sites remain: "
                f"no round could be completed. Set it to {remaining} or fewer"
            )
        return self

    @staticmethod
    def _noised_at_server(privacy: PrivacyConfig) -> bool:
        return privacy.by_site and privacy.noise_at == "server"

    def leavers(self) -> list[str]:
        """The sites that withdraw as a whole, by name."""
        return sorted({s for w in self.withdrawals if not w.patients for s in w.sites})

    def patients_leaving(self, site: str) -> frozenset[str]:
        """Patients of ``site`` who leave while it stays; empty if there are none."""
        return frozenset(p for w in self.withdrawals if site in w.sites for p in w.patients or ())

    def privacy_of(self, site: SiteConfig) -> PrivacyConfig:
        """Differential privacy at ``site``: its own table, else the consortium's."""
        return self.privacy if site.privacy is None else site.privacy

    def site(self, name: str) -> SiteConfig:
        """The site called ``name``.

        Raises
        ------
        ConfigError
            If there is none.
        """
        for site in self.sites:
            if site.name == name:
                return site
        names = ", ".join(site.name for site in self.sites)
        raise ConfigError(f"There is no site '{name}' in consortium '{self.name}'.", f"Sites are: {names}.")


def load_consortium(source: str | Path) -> ConsortiumConfig:
    """Read a consortium file, or a preset by its name (``tiny``, ``demo``, ``paper``).

    Relative data directories are resolved against the file's directory.

    Raises
    ------
    ConfigError
        If the file is missing, is not TOML, or does not fit the schema; every problem is listed.
    """
    path = Path(source)
    if path.suffix != ".toml":
        presets = sorted(file.stem for file in PRESETS.glob("*.toml"))
        if str(source) not in presets:
            known = ", ".join(presets)
            raise ConfigError(f"'{source}' is neither a preset nor a .toml file.", f"Presets are: {known}.")
        path = PRESETS / f"{source}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no consortium file {path}.", "Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The consortium file {path} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", "Mend that line.") from None
    return parse_consortium(table, where=str(path), base=path.parent)


def parse_consortium(table: dict[str, Any], *, where: str, base: Path) -> ConsortiumConfig:
    """Check a table against the schema; ``where`` names it in errors, ``base`` anchors relative paths.

    Raises
    ------
    ConfigError
        With every problem, each with its place and the nearest valid key.
    """
    try:
        config = ConsortiumConfig.model_validate(table)
    except ValidationError as error:
        problems = "\n".join(f"  - {_explain(item)}" for item in error.errors())
        raise ConfigError(f"{where} does not describe a consortium:\n{problems}\n") from None
    sites = tuple(
        site.model_copy(update={"data": (base / site.data).resolve()}) if site.data else site
        for site in config.sites
    )
    kept = config.contributions
    if kept.master_key is not None:
        kept = kept.model_copy(update={"master_key": (base / kept.master_key).absolute()})
    return config.model_copy(update={"sites": sites, "contributions": kept})


def dump_consortium(config: ConsortiumConfig) -> str:
    """The consortium as TOML that :func:`load_consortium` reads back to an equal object."""
    table = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    return tomli_w.dumps(table)


def _explain(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        *parents, key = item["loc"]
        near = difflib.get_close_matches(str(key), _keys_at(tuple(parents)), n=1)
        return f"unknown key '{place}'" + (f"; did you mean '{near[0]}'?" if near else "")
    message = item["msg"].removeprefix("Value error, ")
    value = item.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float) else ""
    return f"{place}: {message}{shown}" if place else message


def _keys_at(parents: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = ConsortiumConfig
    for part in parents:
        if isinstance(part, int):
            continue
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]
