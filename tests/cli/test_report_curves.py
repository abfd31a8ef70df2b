"""The way of the run as drawn: nothing is written across a curve."""

from __future__ import annotations

import numpy as np
import pytest

from cli.report.canvas import NARROW, axes
from cli.report.curves import _free_height


@pytest.mark.parametrize(
    ("levels", "place"),
    [((0.95, 0.5), "bottom"), ((0.95, 0.05), "middle"), ((0.05, 0.5), "top"), ((), "bottom")],
)
def test_a_withdrawal_is_named_where_no_curve_runs(levels: tuple[float, ...], place: str) -> None:
    """At the bottom, in the middle or on top, wherever the level curves are not."""
    with axes(NARROW, 2.5) as (_, ax):
        ax.set_xlim(0, 60)
        ax.set_ylim(20, 30)
        curves = [np.array([[0, 20 + 10 * level], [50, 20 + 10 * level]]) for level in levels]
        height = _free_height(ax, curves, 50.5)
    assert {"bottom": height < 0.1, "middle": 0.4 < height < 0.6, "top": height > 0.9}[place]
