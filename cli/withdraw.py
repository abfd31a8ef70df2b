"""``reconsent withdraw``: file the withdrawal of a site."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from cli.deployment import Deployment, StateOption
from cli.register import (
    AgreementOption,
    ByOption,
    ChannelOption,
    IdentityOption,
    RoleOption,
    actor,
    opened,
)
from unlearning.intake import Intake
from unlearning.request import Ground


def withdraw(
    sites: Annotated[list[str], typer.Argument(help="Who leaves; several leave together.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the record.")],
    requested_by: Annotated[str, typer.Option("--requested-by", help="Who asks; kept with the record.")],
    ground: Annotated[Ground, typer.Option("--ground", help="On which it rests.")] = Ground.UNSTATED,
    patients: Annotated[
        int | None, typer.Option("--patients", help="Only so many patients of the site ask (no identifiers).")
    ] = None,
    site_stays: Annotated[
        bool,
        typer.Option(
            "--site-stays",
            help="Only those --patients leave, whom the site has named in its own policy; it goes on taking "
            "part, and takes part in unlearning them.",
        ),
    ] = False,
    received_at: Annotated[
        str | None, typer.Option("--received-at", help="When it was received, ISO 8601 (default: now).")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option("--request-id", help="The requester's number; filed once under it.")
    ] = None,
    channel: ChannelOption = None,
    agreement: AgreementOption = None,
    requester_role: RoleOption = None,
    identity_check: IdentityOption = None,
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
    by: ByOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """File the withdrawal of a site, at any moment.

    The site is barred at once: it is not asked any more, a reply on its way is refused, its key is refused
    for ever (with --site-stays it is not barred). A run that is under way unlearns it after the present
    round and then trains on; if nothing runs, the next run does so first, or `reconsent unlearn` alone.

    Filing it again while it is open returns the first. The answer is due one calendar month after receipt,
    counted in the consortium's time zone.

    Example
    -------
      reconsent withdraw knee --reason "consent withdrawn" --requested-by dpo@example.org
    """
    from cli.filing import WithdrawalRequest, file_withdrawal, moment_of
    from unlearning.request import PATIENTS_ONLY, RequestDetails, attachment_of, time_zone

    deployment = Deployment.find(state)
    zone = deployment.consortium.compliance.time_zone
    request = WithdrawalRequest(
        sites=tuple(sites),
        reason=reason,
        requested_by=requested_by,
        filed_by=actor(by),
        cooperating=cooperating or site_stays,
        details=RequestDetails(
            ground=ground,
            scope=PATIENTS_ONLY if site_stays else "site" if patients is None else "patients",
            patients=patients,
            received_at=moment_of(received_at, zone),
            zone=zone,
            owner=owner,
            request_id=request_id,
            intake=Intake(
                channel=channel,
                agreement=agreement,
                requester_role=requester_role,
                identity_check=identity_check,
            ),
        ),
        documents=tuple(attachment_of(path) for path in attach or []),
        notes=tuple(note or []),
    )
    filed = file_withdrawal(deployment, request)
    record = filed.record
    if json_output:
        import json

        from server.withdrawal_view import summary_of

        with opened(state) as directory:
            shown = summary_of(directory, record, dt.datetime.now(dt.UTC))
        shown |= {"repeated": filed.repeated, "differing": list(filed.differing)}
        typer.echo(json.dumps(shown, indent=2))
        return
    if filed.repeated:
        typer.echo(f"This was filed before, as {record.id}; nothing was filed twice.")
    for line in filed.differing:
        typer.echo(line)
    typer.echo(f"Withdrawal {record.id} of {record.whom}: {record.state.value}.")
    if filed.lacking:
        typer.echo(f"It is filed, but cannot be carried out as things are: {filed.lacking}", err=True)
    due = record.due_at.astimezone(time_zone(record.zone))
    late = " It is OVERDUE." if record.overdue(dt.datetime.now(dt.UTC)) else ""
    typer.echo(f"To be answered by {due:%Y-%m-%d %H:%M %Z}.{late} {filed.keys}")
    if record.state.closed:
        return
    if filed.running is not None:
        typer.echo(f"Run {filed.running} unlearns it after the present round: `reconsent attach` shows it.")
    else:
        typer.echo("No run is under way: `reconsent unlearn` carries it out, or the next `reconsent train`.")
