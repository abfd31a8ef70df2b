"""The untrained model, built by a site since the server knows no imaging."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from reconsent.errors import RoundError
from server.events import Event, announce
from strategies import messages as msg
from strategies.exchange import exchange
from strategies.outcomes import Moved
from strategies.replies import Reply


def initial_model(
    grid: Grid, active: Mapping[int, str], leaving: frozenset[str], *, timeout: float
) -> tuple[msg.NamedArrays, dict[str, Moved]]:
    """Ask sites one after the other, by name, until one has built the model.

    Parameters
    ----------
    grid
        Flower's way to the nodes.
    active
        Node id → site of those that may be asked.
    leaving
        Not asked as long as there are others: nothing of the oracle may come from a site that leaves.
    timeout
        Seconds for each.

    Returns
    -------
    The model, and the bytes that each site sent for it, of use or not.

    Raises
    ------
    RoundError
        If no site is there, or none could build it.
    """
    candidates = [n for n, site in active.items() if site not in leaving] or list(active)
    if not candidates:
        raise RoundError("No site is online to build the reconstructor.", "Start the SuperNodes.")
    failures = []
    moved: dict[str, Moved] = {}
    for node_id in sorted(candidates, key=lambda n: active[n]):
        reply = _asked(grid, node_id, active, timeout)
        moved[reply.site] = moved.get(reply.site, Moved()).plus(0, reply.received)
        built = _built(reply)
        if not isinstance(built, str):
            return built, moved
        failures.append(built)
        announce(Event("notice", built))
    raise RoundError(
        f"No site could build the reconstructor. {' '.join(failures)}",
        "Check the [model] table and the sites' logs.",
    )


def _asked(grid: Grid, node_id: int, active: Mapping[int, str], timeout: float) -> Reply:
    message = Message(
        msg.content(config={}),
        dst_node_id=node_id,
        message_type=msg.INITIALISE,
        ttl=timeout,
        group_id="initialise",
    )
    return next(iter(exchange(grid, [message], active, timeout=timeout)))


def _built(reply: Reply) -> msg.NamedArrays | str:
    """The untrained model as one site has built it, or what is wrong with it in words."""
    where = f"Site '{reply.site}' could not build the reconstructor:"
    record = msg.arrays_of(reply.message) if reply.message is not None else None
    if record is None:
        return f"{where} {reply.status} {reply.reason}."
    try:
        arrays = msg.named_arrays(record)
    except (ValueError, TypeError, EOFError) as error:
        return f"{where} its arrays cannot be decoded ({error})."
    if not arrays or not all(np.isfinite(array).all() for array in arrays.values()):
        return f"{where} it has no arrays, or values that are not finite."
    return arrays
