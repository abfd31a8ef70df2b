"""``reconsent withdraw``: file the withdrawal of a site."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from cli.deployment import Deployment, StateOption
from reconsent.errors import DeployError, WithdrawalError
from unlearning.request import Ground


def withdraw(
    sites: Annotated[list[str], typer.Argument(help="Who leaves; several leave together.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the record.")],
    requested_by: Annotated[str, typer.Option("--requested-by", help="Who asks; kept with the record.")],
    ground: Annotated[Ground, typer.Option("--ground", help="On which it rests.")] = Ground.UNSTATED,
    patients: Annotated[
        int | None, typer.Option("--patients", help="Only so many patients of the site ask (no identifiers).")
    ] = None,
    received_at: Annotated[
        str | None, typer.Option("--received-at", help="When it was received, ISO 8601 (default: now).")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option("--request-id", help="The requester's number; filed once under it.")
    ] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="Who attends to it.")] = None,
    attach: Annotated[
        list[Path] | None, typer.Option("--attach", help="Document to record by its SHA-256; repeatable.")
    ] = None,
    note: Annotated[list[str] | None, typer.Option("--note", help="A note; repeatable.")] = None,
    state: StateOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """File the withdrawal of a site, at any moment.

    The site is barred at once: it is not asked any more, a reply on its way is refused, its key is refused
    for ever. A run that is under way unlearns it after the present round and then trains on; if nothing
    runs, the next run does so first, or `reconsent unlearn` alone.

    Filing it again while it is open returns the first. The answer is due one calendar month after receipt,
    counted in the consortium's time zone.

    Example
    -------
      reconsent withdraw knee --reason "consent withdrawn" --requested-by dpo@example.org
    """
    from deploy.enrolment import unregister_revoked
    from server.persistence import Enrolments, PrivacyDesk, Roster, Withdrawals
    from unlearning.request import RequestDetails, attachment_of, time_zone

    deployment = Deployment.find(state)
    zone = deployment.consortium.compliance.time_zone
    details = RequestDetails(
        ground=ground,
        scope="site" if patients is None else "patients",
        patients=patients,
        received_at=_moment(received_at, zone),
        zone=zone,
        owner=owner,
        request_id=request_id,
    )
    documents = [attachment_of(path) for path in attach or []]
    with deployment.writing() as opened:
        roster = Roster(opened)
        with opened.session() as session:
            for site in deployment.consortium.sites:
                roster.declare(site.name, site.organ, session=session)
            record = Withdrawals(opened).file(
                sites,
                reason=reason,
                requested_by=requested_by,
                restrict=True,
                details=details,
                session=session,
            )
            desk = PrivacyDesk(opened, requested_by)
            for document in documents:
                desk.attach(record.id, document)
            for text in note or []:
                desk.note(record.id, text)
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

        from server.withdrawal_view import summary_of

        typer.echo(json.dumps(summary_of(record, dt.datetime.now(dt.UTC)), indent=2))
        return
    typer.echo(f"Withdrawal {record.id} of {', '.join(record.sites)}: {record.state.value}.")
    due = record.due_at.astimezone(time_zone(record.zone))
    late = " It is OVERDUE." if record.overdue(dt.datetime.now(dt.UTC)) else ""
    typer.echo(f"To be answered by {due:%Y-%m-%d %H:%M %Z}.{late} {refused}")
    if record.state.closed:
        return
    if running is not None:
        typer.echo(f"Run {running} unlearns it after the present round: `reconsent attach` shows it.")
    else:
        typer.echo("No run is under way: `reconsent unlearn` carries it out, or the next `reconsent train`.")


def _moment(text: str | None, zone: str) -> dt.datetime | None:
    """A moment as somebody typed it; without a time zone, in that of the consortium."""
    from unlearning.request import time_zone

    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise WithdrawalError(
            f"'{text}' is no moment.", "Write it as 2027-01-31T09:30 or 2027-01-31."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=time_zone(zone))
