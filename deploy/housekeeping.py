"""What nobody should have to think of: messages go from the SuperLink, and updates that are too old."""

from __future__ import annotations

from deploy.admission import open_beside_server
from deploy.layout import Layout
from deploy.residue import BUSY_SECONDS, Residue, purge
from reconsent.config import ConsortiumConfig
from server.persistence.state import DATABASE
from server.residues import note_purge
from server.safekeeping import expire_between_runs


def tidy(layout: Layout, consortium: ConsortiumConfig) -> None:
    """Before a SuperLink starts: what no run needs any more goes.

    Raises
    ------
    DeployError
        If the disk is full, or somebody keeps reading a database.
    StateError
        If it cannot be put on record.
    """
    # No run outlives a SuperLink: the messages that its database still holds are of no more use.
    empty_superlink(layout, stopped=True)
    expire_between_runs(layout.state, consortium)


def empty_superlink(layout: Layout, *, patience: float = BUSY_SECONDS, stopped: bool = False) -> Residue:
    """Remove every message from the SuperLink's databases, with TLS and without; and note it in the ledger.

    Parameters
    ----------
    layout
        Of the state directory.
    patience, stopped
        As of :func:`deploy.residue.purge`.

    Returns
    -------
    What was there.

    Raises
    ------
    DeployError
        If a run is under way, the disk is full, or somebody keeps reading a database.
    StateError
        If it was done and cannot be put on record.
    """
    databases = [path for insecure in (False, True) if (path := layout.database(insecure=insecure)).is_file()]
    found = [purge(path, patience=patience, stopped=stopped) for path in databases]
    total = Residue(sum(one.rows for one in found), sum(one.bytes for one in found))
    # Before the first start there is neither a database nor anything to say of it.
    if databases and (layout.state / DATABASE).is_file():
        with open_beside_server(layout.state) as state:
            note_purge(state, total.rows, total.bytes)
    return total
