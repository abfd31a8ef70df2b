"""``reconsent withdraw``: file the withdrawal of a site."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from cli.deployment import Deployment, StateOption
from reconsent.errors import ConfigError, DeployError, WithdrawalError
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
    cooperating: Annotated[
        bool,
        typer.Option(
            "--cooperating", help="The site still answers until its part of the unlearning is done."
        ),
    ] = False,
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
                cooperating=cooperating,
                details=details,
                session=session,
            )
            desk = PrivacyDesk(opened, requested_by)
            for document in documents:
                desk.attach(record.id, document)
            for text in note or []:
                desk.note(record.id, text)
            # A cooperating site is barred from every round, but must still be heard: its key goes at the end.
            for site_name in record.sites if not record.cooperating else ():
                Enrolments(opened).revoke(site_name, f"withdrawal {record.id}", session=session)
        try:
            unregister_revoked(deployment.control, opened)
            running = deployment.running()
            refused = (
                "The sites answer for their part of the unlearning only; their keys are refused after it."
                if record.cooperating
                else "The keys of the sites are refused from now on."
            )
        except DeployError as error:
            running = None
            refused = f"Their keys are refused once the SuperLink can be told: {error.problem}"
    lacking = _lacking(deployment, cooperating=record.cooperating)
    if json_output:
        import json

        from server.withdrawal_view import summary_of

        typer.echo(json.dumps(summary_of(record, dt.datetime.now(dt.UTC)), indent=2))
        return
    typer.echo(f"Withdrawal {record.id} of {', '.join(record.sites)}: {record.state.value}.")
    if lacking:
        typer.echo(f"It is filed, but cannot be carried out as things are: {lacking}", err=True)
    due = record.due_at.astimezone(time_zone(record.zone))
    late = " It is OVERDUE." if record.overdue(dt.datetime.now(dt.UTC)) else ""
    typer.echo(f"To be answered by {due:%Y-%m-%d %H:%M %Z}.{late} {refused}")
    if record.state.closed:
        return
    if running is not None:
        typer.echo(f"Run {running} unlearns it after the present round: `reconsent attach` shows it.")
    else:
        typer.echo("No run is under way: `reconsent unlearn` carries it out, or the next `reconsent train`.")


def _lacking(deployment: Deployment, *, cooperating: bool) -> str:
    """What the configured method needs and does not find, in words; a request is accepted all the same."""
    from strategies.methods import check_method

    unlearning = deployment.consortium.unlearning
    try:
        check_method(
            unlearning.method,
            unlearning.settings,
            deployment.consortium.contributions,
            cooperating=cooperating,
        )
    except ConfigError as error:
        return str(error)
    return ""


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
