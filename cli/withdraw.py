"""``reconsent withdraw``: file the withdrawal of a site."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.deployment import Deployment, StateOption
from reconsent.errors import DeployError


def withdraw(
    sites: Annotated[list[str], typer.Argument(help="Who leaves; several leave together.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the record.")],
    requested_by: Annotated[str, typer.Option("--requested-by", help="Who asks; kept with the record.")],
    state: StateOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """File the withdrawal of a site, at any moment.

    The site is barred at once: it is not asked any more, a reply on its way is refused, its key is refused
    for ever. A run that is under way unlearns it after the present round and then trains on; if nothing
    runs, the next run does so first, or `reconsent unlearn` alone.

    Filing the same withdrawal again returns the first.

    Example
    -------
      reconsent withdraw knee --reason "consent withdrawn" --requested-by dpo@example.org
    """
    from deploy.enrolment import unregister_revoked
    from server.persistence import Enrolments, Roster, Withdrawals

    deployment = Deployment.find(state)
    with deployment.writing() as opened:
        roster = Roster(opened)
        with opened.session() as session:
            for site in deployment.consortium.sites:
                roster.declare(site.name, site.organ, session=session)
            record = Withdrawals(opened).file(
                sites, reason=reason, requested_by=requested_by, restrict=True, session=session
            )
            for site_name in record.sites:
                Enrolments(opened).revoke(site_name, f"withdrawal {record.id}", session=session)
        try:
            unregister_revoked(deployment.control, opened)
            running = deployment.running()
            refused = "The keys of the sites are refused from now on."
        except DeployError as error:
            running = None
            refused = f"Their keys are refused once the SuperLink can be told: {error.problem}"
    if json_output:
        import json

        shown = {
            "id": record.id,
            "sites": list(record.sites),
            "state": record.state.value,
            "received_at": record.received_at.isoformat(),
            "due_at": record.due_at.isoformat(),
        }
        typer.echo(json.dumps(shown, indent=2))
        return
    typer.echo(f"Withdrawal {record.id} of {', '.join(record.sites)}: {record.state.value}.")
    typer.echo(f"To be answered by {record.due_at:%Y-%m-%d}. {refused}")
    if record.state.closed:
        return
    if running is not None:
        typer.echo(f"Run {running} unlearns it after the present round: `reconsent attach` shows it.")
    else:
        typer.echo("No run is under way: `reconsent unlearn` carries it out, or the next `reconsent train`.")
