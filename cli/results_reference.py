"""The reference of ``results.json``, written from the models themselves so that it cannot go stale."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any, Literal

from pydantic import JsonValue

from cli.results import Results
from cli.results_record import Record

_HEAD = """# results.json

A simulation ends with `results.json` (every number, documented here) and `report.html` (the same,
to read). Field names are snake_case, times are ISO 8601 in UTC, PSNR and gaps are in dB, and NaN
or infinity never occur. `schema_version` changes whenever a field changes its meaning or goes; a
file of another version is refused.

Written from `cli/results.py` by `python -m cli.results_reference > docs/results.md`; a test
compares the two. `reconsent` can also print the JSON Schema: `cli.results.json_schema()`.
"""


def reference() -> str:
    """``docs/results.md``: one section an object, one row a field, in the order of first use."""
    sections = [_HEAD]
    for model in _reachable(Results):
        sections.append(f"## {model.__name__}\n\n{_summary(model)}\n")
        rows = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
        for name, field in model.model_fields.items():
            annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            default = "" if field.is_required() else _default(field.get_default(call_default_factory=True))
            meaning = (field.description or "").replace("|", "\\|")
            rows.append(f"| `{name}` | {_type(annotation)} | {default} | {meaning} |")
        sections.append("\n".join(rows) + "\n")
    return "\n".join(sections)


def _summary(model: type[Record]) -> str:
    return (model.__doc__ or "").strip().split("\n")[0]


def _default(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if value in ({}, ()):
        return "empty"
    return '""' if value == "" else str(value)


def _reachable(root: type[Record]) -> list[type[Record]]:
    found: list[type[Record]] = []

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Record):
            if annotation in found:
                return
            found.append(annotation)
            for field in annotation.model_fields.values():
                visit(field.annotation)
        for argument in typing.get_args(annotation):
            visit(argument)

    visit(root)
    return found


def _type(annotation: Any) -> str:
    if annotation is JsonValue:
        return "any"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{str(a).lower() if isinstance(a, bool) else a}`" for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"map from {_type(arguments[0])} to {_type(arguments[1])}"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    names = {str: "text", int: "integer", float: "number", bool: "true/false"}
    return names.get(annotation, "time")


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference())
