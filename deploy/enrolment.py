"""Binds keys to sites, here and at the SuperLink, and takes them away again."""

from __future__ import annotations

from pathlib import Path

from deploy.flower_control import FlowerControl
from deploy.keys import public_key_fingerprint
from reconsent.config import ConsortiumConfig
from reconsent.errors import DeployError, SiteError
from server.persistence import Enrolment, Enrolments, Roster, StateDirectory


def enrol_site(
    control: FlowerControl,
    state: StateDirectory,
    consortium: ConsortiumConfig,
    site: str,
    public_key: Path,
    *,
    by: str = "operator",
) -> Enrolment:
    """Let the node with ``public_key`` speak for ``site``, and connect. Repeating it changes nothing.

    The binding is written before Flower is told, so that a key that can connect always has a site.

    Raises
    ------
    ConfigError
        If the consortium has no such site.
    SiteError
        If the key was revoked or speaks for another site, or the site has another key or has withdrawn.
    DeployError
        If the SuperLink cannot be reached, or refuses the key.
    """
    organ = consortium.site(site).organ
    mark = public_key_fingerprint(public_key)
    roster, enrolments = Roster(state), Enrolments(state)
    with state.session() as session:
        roster.declare(site, organ, session=session)
        status = roster.get(site, session=session).status
        if status != "active":
            raise SiteError(
                f"Site '{site}' is {status}, so no key can be enrolled for it.",
                "A site that has withdrawn comes back by `reconsent site readmit` with a new key.",
            )
        enrolments.enrol(site, mark, by=by, session=session)
    known = {node.fingerprint: node for node in control.list_nodes()}
    node = known.get(mark)
    if node is not None and node.status == "unregistered":
        raise DeployError(
            f"The SuperLink refuses the key of site '{site}' for ever: it was unregistered.",
            "Make a new key pair: `reconsent site key FILE`.",
        )
    node_id = node.node_id if node is not None else control.register_node(public_key, site)
    return enrolments.enrol(site, mark, node_id=node_id, by=by)


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
