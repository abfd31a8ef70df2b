"""Templates to pages, and values to words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

STATES = {
    "received": "received",
    "restricted": "restricted",
    "unlearning": "unlearning",
    "verifying": "verifying",
    "propagating": "erasing",
    "completed": "completed",
    "refused": "refused",
    "legal_hold": "on legal hold",
    "cancelled": "cancelled",
    "failed": "failed",
}
"""The states of a withdrawal, for people."""


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page; everything in it that is not of a template is shown as text."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cli.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(day=day, moment=moment, state=lambda value: STATES.get(value, value))
    return environment


def _read(value: str | dt.datetime) -> dt.datetime:
    return dt.datetime.fromisoformat(value) if isinstance(value, str) else value


def day(value: str | dt.datetime | None) -> str:
    """A day, as ``3 February 2027``."""
    if value is None:
        return ""
    found = _read(value)
    return f"{found.day} {found:%B %Y}"


def moment(value: str | dt.datetime | None) -> str:
    """A moment, as ``3 Feb 2027, 14:05 UTC``."""
    if value is None:
        return ""
    found = _read(value)
    zone = found.tzname() or ""
    return f"{found.day} {found:%b %Y, %H:%M} {zone}".rstrip()
