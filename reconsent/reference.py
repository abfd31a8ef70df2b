"""The reference of the consortium file, written from its schema so that it cannot go stale."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from reconsent.config import ConsortiumConfig

_HEAD = """# The consortium file

A consortium is described by one TOML file; the presets in `reconsent/presets/` are such files, and
`reconsent simulate NAME` runs one by its name. Only a site's `name` and `organ` and a withdrawal's
`sites` have no default. Unknown keys are refused by name, with the nearest valid one.

A run's directory holds the resolved file with every default spelled out (`consortium.toml`).

```toml
name = "two-hospitals"

[training]
rounds = 40

[[withdrawals]]
sites = ["clinic-b"]
at-round = 40

[[sites]]
name = "clinic-a"
organ = "knee"
data = "data/clinic-a"          # made by `reconsent data import`

[[sites]]
name = "clinic-b"
organ = "brain"                 # no data: built-in phantoms
[sites.sampling]
acceleration = 4
```

Written by `python -m reconsent.reference > docs/configuration.md`; a test compares the two.
"""

_TAIL = """## The environment

| variable | meaning |
| --- | --- |
| `RECONSENT_CONSORTIUM` | consortium file or preset; goes before `consortium` of the run configuration |
| `RECONSENT_STATE` | the server's state directory, unless `state` says so; default `./reconsent-state` |
| `RECONSENT_DATABASE_URL` | database instead of the file in the state directory, such as PostgreSQL's |
| `RECONSENT_MASTER_KEY` | master keys of contributions, the one in force first \
([operations](operations.md#keys)) |
| `RECONSENT_SITE` | set for the commands of a key management service: whose key it is |
| `RECONSENT_PHANTOMS` | phantoms of sites without data; default: `phantoms` in the state directory |
| `RECONSENT_SITE_POLICY` | a site's policy file; goes before its node configuration ([sites](site.md)) |
| `RECONSENT_LOG_FORMAT` | `human` or `json`: the form of [log lines](logs.md); `none`: there are none |
| `RECONSENT_SITE_LOG` | a site's log; goes before its node configuration; default: beside the policy |
| `RECONSENT_PRIVACY_LEDGERS` | directory of a site's [privacy ledgers](privacy.md), which is kept; \
goes before its node configuration; default: `privacy` beside the policy or the log |
| `RECONSENT_DEVICE` | device a site computes on, `cpu` (the default), `cuda` or `cuda:0`; \
goes before its node configuration ([sites](site.md#a-gpu)) |
| `RECONSENT_DEPLOYMENT` | set by `reconsent up` for its processes, to know them again; leave it alone |
| `RECONSENT_KILL_AT` | for tests: a point of `reconsent.faults` at which the process kills itself |

PostgreSQL needs `pip install 'reconsent[postgres]'` and a URL that begins with `postgresql+psycopg://`.
`reconsent simulate` sets the others for its run. With `flwr run .` they come from the environment of
the SuperLink and of the SuperNodes, or from `[tool.flwr.app.config]` in `pyproject.toml`
(`consortium`, `state`; override them with `flwr run . --run-config 'consortium="demo"'`).

A SuperNode says which site it is in its node configuration:

| key | meaning |
| --- | --- |
| `site` | the site's name in the consortium file |
| `data` | its data directory, if it is not the one in the consortium file |
| `device` | what it computes on, if not the CPU |
| `policy`, `log` | the site's own [policy and log](site.md) |
| `ledgers` | directory of its [privacy ledgers](privacy.md) |

`reconsent site run SITE.toml` sets all of these for a hospital's node.
"""


def reference() -> str:
    """``docs/configuration.md``: one section a table, one row a key, in the order of the schema."""
    sections = [_HEAD]
    for heading, model in _tables(ConsortiumConfig, "", many=False):
        summary = (model.__doc__ or "").strip().splitlines()[0].replace("``", "`")
        rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        rows += [_row(name, field) for name, field in model.model_fields.items() if not _table_of(field)]
        sections.append(f"## {heading}\n\n{summary}\n\n" + "\n".join(rows) + "\n")
    return "\n".join([*sections, _TAIL])


def _tables(model: type[BaseModel], path: str, *, many: bool) -> Iterator[tuple[str, type[BaseModel]]]:
    heading = f"`[[{path}]]`" if many else f"`[{path}]`" if path else "Top-level keys"
    yield heading, model
    for name, field in model.model_fields.items():
        inner = _table_of(field)
        if inner is not None:
            key = field.alias or name
            yield from _tables(
                inner, f"{path}.{key}" if path else key, many=typing.get_origin(field.annotation) is tuple
            )


def _table_of(field: FieldInfo) -> type[BaseModel] | None:
    for part in (field.annotation, *typing.get_args(field.annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _row(name: str, field: FieldInfo) -> str:
    value = _kind(field.annotation) + "".join(_limit(constraint) for constraint in field.metadata)
    default = (
        "**required**" if field.is_required() else _default(field.get_default(call_default_factory=True))
    )
    cells = (f"`{field.alias or name}`", value, default, field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _kind(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in inner)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_kind(part) for part in inner if part is not type(None))
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return f"list of {_kind(inner[0])}s"
        return "[" + ", ".join(_kind(part) for part in inner) + "]"
    if origin is dict:
        return "table"
    names = {int: "integer", float: "number", str: "string", bool: "true or false", Path: "path"}
    return names[annotation]


def _limit(constraint: Any) -> str:
    words = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    for attribute, sign in words.items():
        if hasattr(constraint, attribute):
            return f", {sign} {getattr(constraint, attribute):g}"
    if (least := getattr(constraint, "min_length", None)) is not None:
        return f", at least {least}"
    return ""


def _default(value: object) -> str:
    if value is None or value in ((), {}):
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
