"""JSON that keeps infinities and not-a-number, which a diverged site reports and JSON has no word for."""

from __future__ import annotations

import json
import math
from typing import Any

_MARK = "$float"


def dump_json(value: Any) -> str:
    """Serialise, with non-finite floats as ``{"$float": "nan"}``; PostgreSQL refuses a bare NaN.

    Raises
    ------
    TypeError
        If a value is no JSON type.
    """
    return json.dumps(_mark(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def load_json(text: str) -> Any:
    """Read what :func:`dump_json` wrote."""
    return json.loads(text, object_hook=_unmark)


def _mark(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: str(value)}
    if isinstance(value, dict):
        return {key: _mark(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mark(inner) for inner in value]
    return value


def _unmark(table: dict[str, Any]) -> Any:
    return float(table[_MARK]) if table.keys() == {_MARK} else table
