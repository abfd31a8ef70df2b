"""The scenarios: what changes about a consortium, and what should come of it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from reconsent.config import PRESETS, ConsortiumConfig, Settings, parse_consortium
from reconsent.errors import ConfigError

_PATH = r"\w+(\.[\w*-]+|\[[\w-]+=[^\[\],=]+(,[\w-]+=[^\[\],=]+)*\])*"
FILES = Path(__file__).with_name("files")


class Check(Settings):
    """A figure of the results, and where it should lie."""

    figure: str = Field(
        description="path into results.json, such as oracle_gap.*.forget_test or "
        "evidence.hallucination[model=unlearned,set=retain_test].false_structure"
    )
    minus: str | None = Field(default=None, description="path of what is subtracted, value by value")
    control: str | None = Field(
        default=None,
        description="path of the same figure of that to which nothing was done, which must not pass; none "
        "for what the remaining sites keep, for doing nothing keeps it",
    )
    at_least: float | None = Field(default=None, description="smallest value that passes")
    at_most: float | None = Field(default=None, description="largest value that passes")
    says: str = Field(description="what it means, in words")

    @field_validator("figure", "minus", "control")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(_PATH, value):
            raise ValueError(f"'{value}' is no path: fields between dots, * for all, [key=value] for some")
        return value


class Scenario(Settings):
    """A situation, as changes to a preset.

    Tables in ``changes`` are merged into the preset's; ``changes.sites`` is a table by site name, of which a
    new name is a new site and ``leave-out = true`` removes one.
    """

    title: str
    about: str = Field(description="what happens, and why it matters")
    changes: dict[str, Any] = Field(default_factory=dict)
    tiny: dict[str, Any] = Field(
        default_factory=dict, description="further changes where it is played with the preset tiny"
    )
    checks: tuple[Check, ...] = ()


def names() -> list[str]:
    """Every scenario there is."""
    return sorted(file.stem for file in FILES.glob("*.toml"))


def load_scenario(name: str) -> Scenario:
    """Read a scenario by its name, or from a file.

    Raises
    ------
    ConfigError
        If there is none, or it is wrong.
    """
    path = Path(name) if name.endswith(".toml") else FILES / f"{name}.toml"
    try:
        return Scenario.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"There is no scenario '{name}'.", f"There are: {', '.join(names())}.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"The scenario {path} cannot be read: {error}.") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path} is no scenario: {problems}.") from None


def consortium_of(name: str, scenario: Scenario, preset: str, seed: int | None = None) -> ConsortiumConfig:
    """The consortium that a scenario makes of a preset.

    Raises
    ------
    ConfigError
        If there is no such preset, or what comes of it is no consortium.
    """
    path = PRESETS / f"{preset}.toml"
    if not path.is_file():
        raise ConfigError(f"There is no preset '{preset}'.", "Presets are: demo, paper, tiny.")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    table = _merged(table, scenario.changes)
    if preset == "tiny":
        table = _merged(table, scenario.tiny)
    table["name"] = f"{Path(name).stem}-{preset}"
    if seed is not None:
        table["seed"] = seed
    return parse_consortium(table, where=f"The scenario '{name}' of the preset {preset}", base=path.parent)


def _merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(table)
    for key, value in changes.items():
        if key == "sites" and isinstance(value, Mapping):
            result[key] = _sites(result.get(key, []), value)
        elif key == "unlearning" and "method" in value:
            # Settings are one method's own.
            result[key] = {**result.get(key, {}), "settings": {}, **value}
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result


def _sites(sites: list[dict[str, Any]], changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    known = {site["name"]: site for site in sites}
    for name, change in changes.items():
        change = dict(change)
        if change.pop("leave-out", False):
            known.pop(name, None)
            continue
        # A new site is like another one, but for what is said of it.
        like = known.get(change.pop("like", name), {})
        known[name] = {**_merged(like, change), "name": name}
    return list(known.values())
