"""Who is asked in a round, and what they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flwr.serverapp import Grid

Members = Callable[[Grid], Mapping[int, str]]
"""Who is in the consortium: node id → site, of the nodes that are online."""

RoundConfig = Callable[[int], Mapping[str, int | float | str | bool]]
"""What the sites are told in a given round, beside its number."""


def connected_nodes(grid: Grid) -> dict[int, str]:
    """Every connected node, each a site of its own called ``node-<id>``."""
    return {node_id: f"node-{node_id}" for node_id in grid.get_node_ids()}
