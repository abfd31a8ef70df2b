"""Small TOML files of a site, read into a schema; every problem is explained at once."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from reconsent.config import Settings
from reconsent.errors import ConfigError

_Model = TypeVar("_Model", bound=Settings)


def read_settings(path: Path, schema: type[_Model], what: str) -> _Model:
    """Read a flat TOML file.

    Parameters
    ----------
    path
        The file.
    schema
        What it must look like.
    what
        How errors call it, such as ``policy``.

    Raises
    ------
    ConfigError
        If the file is missing, cannot be read, is not TOML or does not fit; every problem is listed, an
        unknown key with the nearest known one.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"There is no {what} file {path}.", "Check the path; `reconsent site init` writes one to edit."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The {what} file {path} cannot be read: {error}.", "Check the file.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", "Mend that line.") from None
    try:
        return schema.model_validate(table)
    except ValidationError as error:
        problems = "\n".join(f"  - {_explain(item, schema)}" for item in error.errors())
        raise ConfigError(f"{path} is not a valid {what} file:\n{problems}\n", "Mend those keys.") from None


def _explain(item: Any, schema: type[Settings]) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        keys = [field.alias or name for name, field in schema.model_fields.items()]
        near = difflib.get_close_matches(place, keys, n=1)
        return f"unknown key '{place}'" + (f"; did you mean '{near[0]}'?" if near else "")
    if item["type"] == "missing":
        return f"'{place}' is missing"
    return f"{place}: {item['msg'].removeprefix('Value error, ')} (got {item.get('input')!r})"
