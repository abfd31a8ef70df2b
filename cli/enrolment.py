"""``reconsent site add``, ``replace-key`` and ``readmit``: whose key may speak for which site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.deployment import Deployment, StateOption

SiteArgument = Annotated[str, typer.Argument(help="The site's name in the consortium file.")]
KeyOption = Annotated[
    Path, typer.Option("--public-key", help="Public key of the site's node: the .pub file it sent.")
]


def add(site: SiteArgument, public_key: KeyOption, state: StateOption = None) -> None:
    """Enrol a site's node: bind its public key to the site, and let it connect.

    The site makes the key pair with `reconsent site key`, keeps the private key, and sends the .pub file.
    Check the fingerprint with it by telephone.
    """
    from deploy.enrolment import enrol_site

    deployment = Deployment.find(state)
    with deployment.writing() as opened:
        admission = enrol_site(deployment.control, opened, deployment.consortium, site, public_key)
    typer.echo(f"Site {site} is enrolled as node {admission.node_id}; its node can connect now.")


def replace_key(site: SiteArgument, public_key: KeyOption, state: StateOption = None) -> None:
    """Give a site another key in place of the one it has; it stays in the consortium.

    For a key that may be known to others, or a node that moves. The old key is refused for ever from this
    moment, also in a round that is under way; the node with the new one joins in the next round.
    """
    from deploy.enrolment import replace_key as replace

    deployment = Deployment.find(state)
    with deployment.writing() as opened:
        admission = replace(deployment.control, opened, deployment.consortium, site, public_key)
    typer.echo(
        f"Site {site} has a new key, as node {admission.node_id}; the old one is refused for ever.\n"
        "Start the site's node with the new private key."
    )


def readmit(site: SiteArgument, public_key: KeyOption, state: StateOption = None) -> None:
    """Take a withdrawn site in again, with a new key.

    It comes back as a newcomer: what it contributed before stays forgotten, and its old key refused.
    """
    from deploy.enrolment import readmit_site

    deployment = Deployment.find(state)
    with deployment.writing() as opened:
        admission = readmit_site(deployment.control, opened, deployment.consortium, site, public_key)
    typer.echo(f"Site {site} is readmitted as node {admission.node_id}; its node can connect now.")
