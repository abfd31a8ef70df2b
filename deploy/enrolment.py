"""Takes keys from sites that leave, and gives new ones to those that come."""

from __future__ import annotations

from pathlib import Path

from deploy.admission import Admission, admit
from deploy.flower_control import FlowerControl
from deploy.keys import NodeKey, public_key_fingerprint
from reconsent.config import ConsortiumConfig
from reconsent.errors import SiteError
from server.persistence import Enrolment, Enrolments, Roster, SiteStatus, StateDirectory


def enrol_site(
    control: FlowerControl,
    state: StateDirectory,
    consortium: ConsortiumConfig,
    site: str,
    public_key: Path,
) -> Admission:
    """Let the node with ``public_key`` speak for ``site``, and connect. Repeating it changes nothing.

    Raises
    ------
    ConfigError
        If the consortium has no such site.
    SiteError
        If the site has withdrawn, or the key cannot be enrolled for it.
    DeployError
        If the SuperLink cannot be reached, or refuses the key.
    """
    organ = consortium.site(site).organ
    key = NodeKey(public_key.with_suffix(""), public_key, public_key_fingerprint(public_key))
    roster = Roster(state)
    roster.declare(site, organ)
    status = roster.get(site).status
    if status is not SiteStatus.ACTIVE:
        raise SiteError(
            f"Site '{site}' is {status}, so no key can be enrolled for it.",
            "A site that has withdrawn comes back by `reconsent site readmit` with a new key.",
        )
    admission = admit(control, state.path, {site: key})[site]
    if admission.refusal:
        raise SiteError(
            f"The key in {public_key} is not accepted for site '{site}': {admission.refusal}.",
            "A site speaks with one key, and a revoked one never comes back: `reconsent site key FILE`.",
        )
    return admission


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
