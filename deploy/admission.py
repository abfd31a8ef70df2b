"""Let the sites' keys in: enrolled in the state database, and registered with the SuperLink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.flower_control import FlowerControl
from deploy.keys import NodeKey
from reconsent.errors import SiteError, StateError
from server.persistence import Enrolment, Enrolments, StateDirectory


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a site's node may connect.

    Attributes
    ----------
    site
        Its name.
    node_id
        Flower's number; ``None`` if it is kept out.
    refusal
        Why it is kept out; empty if it is not.
    """

    site: str
    node_id: int | None
    refusal: str = ""


def admit(
    control: FlowerControl, state: Path, keys: Mapping[str, NodeKey], *, by: str
) -> dict[str, Admission]:
    """Enrol and register the key of each site; repeating it changes nothing.

    A key that was revoked, or that Flower refuses for ever, stays out, and so does one of a site that speaks
    with another key: its site is named with the reason, the others go on. Keys that were revoked while the
    SuperLink could not be told are unregistered first.

    Parameters
    ----------
    control
        Way to the SuperLink.
    state
        The state directory; its database is made if it is missing.
    keys
        Site → key pair.
    by
        The command that asks for it; noted with each key that is new.

    Raises
    ------
    DeployError
        If the SuperLink cannot be reached.
    StateError
        If the state database cannot be used.
    """
    admissions = {}
    with open_beside_server(state) as directory:
        unregister_revoked(control, directory)
        known = {node.fingerprint: node for node in control.list_nodes()}
        enrolments = Enrolments(directory)
        for site, key in keys.items():
            node = known.get(key.fingerprint)
            if node is not None and node.status == "unregistered":
                admissions[site] = Admission(site, None, "its key was unregistered, which is for ever")
                continue
            try:
                # Before Flower lets the key in, it must be known for whom it speaks.
                enrolments.enrol(site, key.fingerprint, by=by)
            except SiteError as error:
                admissions[site] = Admission(site, None, error.problem)
                continue
            node_id = control.register_node(key.public, site) if node is None else node.node_id
            enrolments.enrol(site, key.fingerprint, node_id=node_id, by=by)
            admissions[site] = Admission(site, node_id)
    return admissions


def open_beside_server(state: Path) -> StateDirectory:
    """Open a state directory for short writes, whether or not a run holds it; made if it is missing.

    Raises
    ------
    StateError
        If it cannot be used.
    """
    try:
        return StateDirectory.open(state, exclusive=False)
    except StateError:
        # Missing, or of an older release: who opens it exclusively makes or upgrades it.
        with StateDirectory.open(state):
            pass
        return StateDirectory.open(state, exclusive=False)


def unregister_revoked(control: FlowerControl, state: StateDirectory) -> list[Enrolment]:
    """Have the SuperLink refuse every revoked key for ever; returns those it was told of now.

    Raises
    ------
    DeployError
        If it cannot be reached; nothing is lost, and the next call does what remains.
    """
    enrolments = Enrolments(state)
    pending = enrolments.to_unregister()
    if not pending:
        return []
    known = {node.fingerprint: node for node in control.list_nodes()}
    for enrolment in pending:
        node = known.get(enrolment.fingerprint)
        if node is not None and node.status != "unregistered":
            control.unregister_node(node.node_id)
        enrolments.unregistered(enrolment.fingerprint)
    return pending
