"""Takes keys from sites that leave, and gives new ones to those that come."""

from __future__ import annotations

from pathlib import Path

from deploy.admission import Admission, admit, unregister_revoked
from deploy.flower_control import FlowerControl
from deploy.keys import NodeKey, public_key_fingerprint
from reconsent.config import ConsortiumConfig
from reconsent.errors import SiteError
from server.persistence import Enrolments, Roster, RunEvents, SiteStatus, StateDirectory

_ADD = "reconsent site add"
_REPLACE = "reconsent site replace-key"
_READMIT = "reconsent site readmit"


def enrol_site(
    control: FlowerControl,
    state: StateDirectory,
    consortium: ConsortiumConfig,
    site: str,
    public_key: Path,
    *,
    by: str = _ADD,
) -> Admission:
    """Let the node with ``public_key`` speak for ``site``, and connect. Repeating it changes nothing.

    ``by`` is the command that asks for it, noted with the key.

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
    admission = admit(control, state.path, {site: key}, by=by)[site]
    if admission.refusal:
        raise SiteError(
            f"The key in {public_key} is not accepted for site '{site}': {admission.refusal}.",
            "A site speaks with one key (`reconsent site replace-key` gives another); a revoked one never "
            "comes back: `reconsent site key FILE` makes a new pair.",
        )
    return admission


def replace_key(
    control: FlowerControl,
    state: StateDirectory,
    consortium: ConsortiumConfig,
    site: str,
    public_key: Path,
) -> Admission:
    """Let the node with ``public_key`` speak for ``site`` in place of the one that did.

    The old key is revoked and the new one enrolled in one transaction: there is no moment at which both speak
    for the site, and none at which neither does. Then the new key is registered with the SuperLink, and the
    old one refused by it for ever. Repeating it does what remains.

    Raises
    ------
    ConfigError
        If the consortium has no such site.
    SiteError
        If the site has withdrawn or is withdrawing, has no key, or the new key was used before.
    DeployError
        If the SuperLink cannot be reached; then nothing was changed, or repeating it does the rest.
    """
    consortium.site(site)
    mark = public_key_fingerprint(public_key)
    enrolments = Enrolments(state)
    old = enrolments.valid(site)
    if old is None:
        raise SiteError(
            f"Site '{site}' has no key that could be replaced.",
            "Enrol one: `reconsent site add`; a site that has withdrawn: `reconsent site readmit`.",
        )
    status = Roster(state).get(site).status
    if status is not SiteStatus.ACTIVE:
        raise SiteError(
            f"Site '{site}' is {status}, so its key is not replaced.",
            "A site that has withdrawn comes back by `reconsent site readmit` with a new key.",
        )
    if mark != old.fingerprint:
        if any(enrolment.fingerprint == mark for enrolment in enrolments.all()):
            raise SiteError(
                f"The key in {public_key} was used before.",
                "A key that is given up never comes back: make a new pair with `reconsent site key FILE`.",
            )
        # Before anything is changed: who cannot reach the SuperLink would leave the site without a node.
        control.list_nodes()
        with state.session() as session:
            enrolments.revoke(site, f"replaced by the key {mark}", session=session)
            enrolments.enrol(site, mark, by=_REPLACE, session=session)
            note = f"The key of site {site} was replaced: {old.fingerprint[:16]}… by {mark[:16]}…."
            RunEvents(state).append("operator", "notice", note, session=session)
    admission = enrol_site(control, state, consortium, site, public_key, by=_REPLACE)
    unregister_revoked(control, state)
    return admission


def readmit_site(
    control: FlowerControl,
    state: StateDirectory,
    consortium: ConsortiumConfig,
    site: str,
    public_key: Path,
) -> Admission:
    """Take a withdrawn site in again, as a newcomer, and let the node with ``public_key`` speak for it.

    The site is active again and has its new key in one transaction, then the key is registered with the
    SuperLink. Repeating it does what remains.

    Raises
    ------
    ConfigError
        If the consortium has no such site.
    SiteError
        If the site has not withdrawn, or the key was used before.
    DeployError
        If the SuperLink cannot be reached; then nothing was changed, or repeating it does the rest.
    """
    consortium.site(site)
    mark = public_key_fingerprint(public_key)
    enrolments, roster = Enrolments(state), Roster(state)
    used = next((enrolment for enrolment in enrolments.all() if enrolment.fingerprint == mark), None)
    begun = (
        used is not None
        and (used.site, used.enrolled_by, used.revoked_at) == (site, _READMIT, None)
        and roster.get(site).status is SiteStatus.ACTIVE
    )
    if used is not None and not begun:
        raise SiteError(
            f"The key in {public_key} was used before.",
            "A site that comes back needs a new key pair: `reconsent site key FILE`.",
        )
    if not begun:
        # Before anything is changed: who cannot reach the SuperLink would leave the site without a node.
        control.list_nodes()
        with state.session() as session:
            roster.return_of(site, session=session)
            enrolments.enrol(site, mark, by=_READMIT, session=session)
            RunEvents(state).append("operator", "notice", f"Site {site} is readmitted.", session=session)
    return enrol_site(control, state, consortium, site, public_key, by=_READMIT)
