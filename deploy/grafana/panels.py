"""A panel and a row as they are declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["stat", "lines", "bars", "table"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes
    ----------
    title, about
        What it is called, and what it shows in a sentence.
    queries
        Legend → PromQL; ``{}`` in it stands for the chosen exporters.
    unit
        Grafana's id of the unit.
    kind
        How it is drawn.
    width, height
        In cells of the grid.
    red_above, red_below
        Where a value is no longer good.
    """

    title: str
    about: str
    queries: dict[str, str]
    unit: str
    kind: Kind = "lines"
    width: int = 8
    height: int = 7
    red_above: float | None = None
    red_below: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]
