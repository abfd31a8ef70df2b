"""Quantities that change from round to round."""

from __future__ import annotations

import math
from typing import Literal

Shape = Literal["constant", "linear", "cosine", "geometric"]


def scheduled(shape: Shape, first: float, last: float | None, index: int, count: int) -> float:
    """The value in round ``index`` (from 0) of ``count`` rounds on the way from ``first`` to ``last``.

    The first round has ``first``, the last one has ``last``; a single round has ``first``.

    >>> [round(scheduled("geometric", 4.0, 1.0, i, 3), 3) for i in range(3)]
    [4.0, 2.0, 1.0]
    """
    if last is None or shape == "constant" or count <= 1:
        return first
    share = min(max(index / (count - 1), 0.0), 1.0)
    if shape == "linear":
        return first + (last - first) * share
    if shape == "cosine":
        return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
    return float(first * (last / first) ** share)
