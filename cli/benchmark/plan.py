"""What a benchmark compares: consortia, seeds, who leaves, methods and the settings they may choose from."""

from __future__ import annotations

import hashlib
import itertools
import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from reconsent.config import ConsortiumConfig, Settings, WithdrawalConfig, dump_consortium, load_consortium
from reconsent.errors import ConfigError
from strategies.methods import METHODS, check_method, method_settings

PLANS = Path(__file__).with_name("plans")

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Case:
    """A consortium with a seed, and the site that leaves it."""

    consortium: ConsortiumConfig
    withdrawn: str

    @property
    def name(self) -> str:
        """Short and unique within a plan."""
        return f"{self.consortium.name}-{self.consortium.seed}-{self.withdrawn}"

    @property
    def base_name(self) -> str:
        """Of the same consortium before anybody leaves."""
        return f"{self.consortium.name}-{self.consortium.seed}"

    @property
    def base(self) -> ConsortiumConfig:
        """The same consortium before anybody leaves."""
        return self.consortium.model_copy(update={"withdrawals": ()})

    @property
    def digest(self) -> str:
        """SHA-256 of the consortium with all its defaults: another one has another."""
        return hashlib.sha256(dump_consortium(self.consortium).encode()).hexdigest()


class CasesConfig(Settings):
    """A consortium, trained with several seeds; one site after the other leaves it."""

    consortium: str = Field(description="a preset, or a file beside the plan")
    seeds: tuple[int, ...] = Field(min_length=1, description="each a consortium of its own")
    withdrawn: tuple[str, ...] = Field(min_length=1, description="sites that leave in turn")


class AblationConfig(Settings):
    """One setting of some methods, varied from the settings that were chosen for each."""

    methods: tuple[str, ...] = Field(min_length=1, description="of those that are compared")
    setting: str = Field(description="what is varied")
    values: tuple[Value, ...] = Field(min_length=1, description="beside the chosen one")


class PlanConfig(Settings):
    """A benchmark."""

    title: str = Field(description="of the page")
    report: CasesConfig = Field(description="what the methods are compared on")
    search: CasesConfig = Field(description="what their settings are chosen on; other seeds, other organs")
    anchors: tuple[float, ...] = Field(
        default=(), description="shares of the rounds at which the model is kept, for `rollback`"
    )
    history_every: int | None = Field(
        default=None, ge=0, description="keep every k-th update, for `pga`; empty: as the consortium says"
    )
    budget: int = Field(default=6, ge=1, description="settings tried for each method on each search case")
    methods: dict[str, dict[str, tuple[Value, ...]]] = Field(
        description="method → setting → values to choose from"
    )
    other_oracles: int = Field(
        default=0,
        ge=0,
        description="oracles trained besides in each reported case, from other starts: how far two are apart",
    )
    limits: tuple[str, ...] = Field(default=(), description="what else the page holds against its figures")
    ablation: AblationConfig | None = Field(
        default=None, description="of one setting, on the cases that are reported"
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """A benchmark whose consortia are loaded and whose settings are checked."""

    name: str
    config: PlanConfig
    report: tuple[Case, ...]
    search: tuple[Case, ...]

    def candidates(self, method: str) -> list[dict[str, Value]]:
        """The settings tried for ``method``: at most ``budget``, the method's own defaults first.

        A setting with one value has it in all of them. The rest are drawn without replacement from all
        combinations, with a generator that the method's name seeds: the same for everybody who repeats it.
        """
        grid = self.config.methods[method]
        first = {name: values[0] for name, values in grid.items() if len(values) == 1}
        combined = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        generator = random.Random(f"{self.name} {method}")
        found: list[dict[str, Value]] = []
        # Values that are the defaults would repeat a trial.
        meant: list[object] = []
        for settings in [first, *generator.sample(combined, len(combined))]:
            parsed = method_settings(method, settings)
            if parsed not in meant:
                found.append(settings)
                meant.append(parsed)
        return found[: self.config.budget]


def load_plan(source: str) -> Plan:
    """Read a plan, by its name (``small``, ``paper``, ``tiny``) or from a file.

    Raises
    ------
    ConfigError
        If it is missing or wrong, names an unknown method or site, searches where it reports, or compares a
        method that what its consortia keep cannot serve.
    """
    path = Path(source) if source.endswith(".toml") else PLANS / f"{source}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        config = PlanConfig.model_validate(table)
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in PLANS.glob("*.toml") if "-" not in file.stem))
        raise ConfigError(f"There is no benchmark plan '{source}'.", f"Plans are: {known}.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"The benchmark plan {path} cannot be read: {error}.") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path} is no benchmark plan: {problems}.") from None
    plan = Plan(
        path.stem,
        config,
        _cases(config.report, path, config),
        _cases(config.search, path, config),
    )
    shared = {case.base_name for case in plan.report} & {case.base_name for case in plan.search}
    if shared:
        raise ConfigError(
            f"{path}: {', '.join(sorted(shared))} would be searched and reported on.",
            "Choose settings on other seeds or another consortium than those reported.",
        )
    for method, grid in config.methods.items():
        _check(method, grid)
    if config.ablation is not None:
        for method in config.ablation.methods:
            if method not in config.methods:
                raise ConfigError(f"{path}: the ablation's method {method} is not compared.")
            _check(method, {config.ablation.setting: config.ablation.values})
    for method in config.methods:
        for settings in [*plan.candidates(method), *_varied(config.ablation, method)]:
            for case in (plan.search[0], plan.report[0]):
                check_method(method, settings, case.consortium.contributions, cooperating=True)
    return plan


def _varied(ablation: AblationConfig | None, method: str) -> list[dict[str, Value]]:
    if ablation is None or method not in ablation.methods:
        return []
    return [{ablation.setting: value} for value in ablation.values]


def select(plan: Plan, methods: Sequence[str], seeds: int | None) -> Plan:
    """The same plan with some of its methods, and its first ``seeds`` seeds to report on.

    Raises
    ------
    ConfigError
        If a method is not in the plan.
    """
    unknown = [name for name in methods if name not in plan.config.methods]
    if unknown:
        raise ConfigError(
            f"The plan '{plan.name}' has no method {', '.join(unknown)}.",
            f"It has: {', '.join(plan.config.methods)}.",
        )
    kept = plan.config.report.seeds[:seeds]
    grids = {name: grid for name, grid in plan.config.methods.items() if not methods or name in methods}
    ablation = plan.config.ablation
    if ablation is not None:
        varied = tuple(method for method in ablation.methods if method in grids)
        ablation = ablation.model_copy(update={"methods": varied}) if varied else None
    config = plan.config.model_copy(update={"methods": grids, "ablation": ablation})
    return Plan(plan.name, config, tuple(c for c in plan.report if c.consortium.seed in kept), plan.search)


def _cases(config: CasesConfig, path: Path, plan: PlanConfig) -> tuple[Case, ...]:
    beside = path.parent / config.consortium
    loaded = load_consortium(beside if beside.suffix == ".toml" else config.consortium)
    asked: dict[str, Any] = {"anchors": plan.anchors} if plan.anchors else {}
    if plan.history_every is not None:
        asked["history_every"] = plan.history_every
    kept = loaded.contributions.model_copy(update=asked)
    found = []
    for seed in config.seeds:
        for site in config.withdrawn:
            loaded.site(site)
            changes: Mapping[str, Any] = {
                "seed": seed,
                "withdrawals": (WithdrawalConfig(sites=(site,)),),
                "contributions": kept,
                "continue_rounds": 0,
            }
            found.append(Case(loaded.model_copy(update=changes), site))
    return tuple(found)


def _check(method: str, grid: Mapping[str, Sequence[Value]]) -> None:
    method_settings(method, {})
    for key, values in grid.items():
        for value in values:
            kind = METHODS[method].settings_type
            aliases = {field.alias or name for name, field in kind.model_fields.items()}
            if key not in aliases:
                raise ConfigError(
                    f"The method {method} has no setting '{key}'.", f"It has: {', '.join(sorted(aliases))}."
                )
            method_settings(method, {key: value})
