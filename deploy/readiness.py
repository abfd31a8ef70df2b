"""When a process of the consortium is ready, and when a node may be started again."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path

from deploy import commands, health
from deploy.component import Report
from deploy.exporters import METRICS, answers
from deploy.flower_control import FlowerControl
from deploy.keeper import KEEPER
from deploy.ports import LOCAL
from deploy.processes import ProcessRecord
from deploy.superlink_database import PATIENCE_SECONDS
from reconsent.errors import DeployError

RELEASE_SECONDS = 90.0
"""Time for the SuperLink to notice that a node was killed: two of its heartbeats, 30 s each, and some."""


def serves(record: ProcessRecord) -> bool:
    """Whether the process says of itself that it serves."""
    if record.name == KEEPER:
        return True
    if METRICS in record.ports:
        return answers(record)
    if commands.HEALTH not in record.ports:
        return False
    return health.status(commands.address(record.ports, commands.HEALTH), timeout=1.0) == "serving"


def link_is_ready(link: ProcessRecord) -> bool:
    """Whether the SuperLink takes commands: it serves health a moment before it listens for them."""
    if not serves(link):
        return False
    try:
        with socket.create_connection((LOCAL, link.ports[commands.API]), timeout=2.0):
            return True
    except OSError:
        return False


def nodes_are_ready(
    control: FlowerControl,
    records: Mapping[str, ProcessRecord],
    nodes: Mapping[str, int | None],
    *,
    insecure: bool,
) -> bool:
    """Whether the SuperNode of every site serves and is on line.

    Parameters
    ----------
    control
        Way to the SuperLink.
    records
        Site → the process of its SuperNode.
    nodes
        Site → Flower's id of its node.
    insecure
        Without keys a node's id is new at each start, so they can only be counted.

    Raises
    ------
    DeployError
        If the SuperLink cannot be reached.
    """
    if not all(serves(record) for record in records.values()):
        return False
    online = {node.node_id for node in control.list_nodes() if node.status == "online"}
    if insecure:
        return len(online) >= len(nodes)
    return {node_id for node_id in nodes.values() if node_id is not None} <= online


def release(database: Path, sites: Collection[str]) -> None:
    """Have the SuperLink know at once that the nodes of ``sites`` do not run.

    It would take those that were killed for online for another minute, and refuse them until then.

    Parameters
    ----------
    database
        Its database; it may be at work on it.
    sites
        The names under which the nodes are registered.

    Raises
    ------
    DeployError
        If the database cannot be written.
    """
    if not database.is_file():
        return
    gone = [(site,) for site in sites]
    try:
        with closing(sqlite3.connect(database, timeout=PATIENCE_SECONDS)) as connection, connection:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'node'").fetchone():
                connection.executemany(
                    "UPDATE node SET status = 'offline', online_until = unixepoch() "
                    "WHERE status = 'online' AND name = ?",
                    gone,
                )
    except sqlite3.Error as error:
        raise DeployError(
            f"The SuperLink's database {database} cannot be written: {error}.",
            "Free space on its disk, and repeat `reconsent up`.",
        ) from error


def await_release(control: FlowerControl, nodes: Mapping[str, int | None], report: Report) -> None:
    """Wait until the SuperLink has noticed that nodes that no longer run are gone.

    It takes a node that was killed for online until a minute has passed without a sign of life, and refuses
    the same key until then: a new SuperNode would end at once.

    Parameters
    ----------
    control
        Way to the SuperLink.
    nodes
        Site → Flower's id, of those that are to be started.
    report
        Told when there is something to wait for.

    Raises
    ------
    DeployError
        If one is still online after 90 s: then it runs somewhere else.
    """
    gone = {node_id: site for site, node_id in nodes.items() if node_id is not None}
    deadline = time.monotonic() + RELEASE_SECONDS
    told = False
    while gone:
        held = [n for n in control.list_nodes() if n.status == "online" and n.node_id in gone]
        if not held:
            return
        names = ", ".join(gone[node.node_id] for node in held)
        if not told:
            report(f"Waiting up to a minute until the SuperLink misses the former node of {names}")
            told = True
        if time.monotonic() > deadline:
            raise DeployError(
                f"The SuperLink still has a connection to a node of {names}, which does not run here.",
                "Does a SuperNode with that key run elsewhere? Stop it, and repeat `reconsent up`.",
            )
        time.sleep(0.5)
