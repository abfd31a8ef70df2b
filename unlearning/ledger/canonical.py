"""JSON of which there is only one form (RFC 8785), so that it can be hashed and signed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import rfc8785

from reconsent.errors import LedgerError


def canonical(value: Any) -> bytes:
    """The canonical JSON of ``value``: sorted keys, shortest numbers, no spaces, UTF-8.

    Floats that are not finite, which JSON has no word for, become the texts ``nan``, ``inf`` and ``-inf``.

    Raises
    ------
    LedgerError
        If something in it is no JSON value, or an integer beyond ±(2⁵³ − 1), which readers would round.
    """
    try:
        return rfc8785.dumps(_plain(value))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise LedgerError(f"This has no canonical JSON: {error}.", "Write it as text.") from None


def parse(content: bytes | str) -> Any:
    """Read canonical JSON.

    Raises
    ------
    LedgerError
        If it is no JSON, or not in its canonical form: then it is not what was hashed.
    """
    encoded = content.encode() if isinstance(content, str) else content
    try:
        value = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"This is not JSON: {error}.") from None
    if canonical(value) != encoded:
        raise LedgerError("This is JSON, but not in its canonical form.")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
