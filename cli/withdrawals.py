"""``reconsent withdrawals``: the privacy officer's register of withdrawals."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.deployment import StateOption
from cli.register import (
    AgreementOption,
    ByOption,
    ChannelOption,
    IdentityOption,
    JsonOption,
    RoleOption,
    WithdrawalArgument,
    actor,
    full_id,
    opened,
)
from reconsent.errors import WithdrawalError
from unlearning.intake import Intake

if TYPE_CHECKING:
    from server.persistence import PrivacyDesk, WithdrawalRecord

app = typer.Typer(
    no_args_is_help=True,
    help="Withdrawals and their deadlines: list, show, extend, hold, refuse, notify. They work with and "
    "without a run under way. `reconsent withdraw` files one.",
)

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; recorded, and part of the certificate.")]


@app.command("list")
def list_withdrawals(
    state: StateOption = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only those that are not closed.")] = False,
    json_output: JsonOption = False,
) -> None:
    """List withdrawals with their deadlines; what is overdue is marked."""
    from server.persistence import Withdrawals
    from server.withdrawal_view import summary_of

    now = dt.datetime.now(dt.UTC)
    with opened(state) as directory:
        records = Withdrawals(directory).open() if open_only else Withdrawals(directory).all()
        shown = [summary_of(directory, record, now) for record in records]
    if json_output:
        typer.echo(json.dumps(shown, indent=2))
        return
    console = Console()
    table = Table("withdrawal", "sites", "state", "ground", "owner", "due", "left", box=box.SIMPLE)
    table.columns[0].no_wrap = True
    for entry in shown:
        table.add_row(
            entry["id"],
            ", ".join(entry["sites"]),
            entry["state"] + (" (in part)" if entry["in_part"] else "") + _held(entry),
            entry["ground"],
            escape(entry["owner"] or ""),
            entry["due_local"][:10] + (" (extended)" if entry["extended_at"] else ""),
            _left(entry),
        )
    console.print(table)
    overdue = [entry["id"] for entry in shown if entry["overdue"]]
    if overdue:
        console.print(f"[bold red]Overdue:[/bold red] {', '.join(overdue)}", highlight=False)


@app.command()
def show(withdrawal: WithdrawalArgument, state: StateOption = None, json_output: JsonOption = False) -> None:
    """Show a withdrawal: request, deadline, every step, notes and documents, recipients of its models."""
    from server.persistence import Withdrawals
    from server.withdrawal_view import details_of

    with opened(state) as directory:
        record = Withdrawals(directory).get(full_id(directory, withdrawal))
        found = details_of(directory, record, dt.datetime.now(dt.UTC))
    if json_output:
        typer.echo(json.dumps(found, indent=2))
        return
    _print_details(found, record.ground.words, record.intake)


@app.command()
def extend(
    withdrawal: WithdrawalArgument, reason: ReasonOption, state: StateOption = None, by: ByOption = None
) -> None:
    """Extend the period by two months; the requester must be told why within the first."""
    with opened(state, writable=True) as directory:
        record = _desk(directory, by).extend(full_id(directory, withdrawal), reason)
    typer.echo(f"Withdrawal {record.id}: extended, to be answered by {record.due_at:%Y-%m-%d}.")
    typer.echo("Tell the requester, with the reason, before the first month is over.")


@app.command()
def refuse(
    withdrawal: WithdrawalArgument, reason: ReasonOption, state: StateOption = None, by: ByOption = None
) -> None:
    """Refuse a withdrawal, with the reason; the sites may take part again, with new keys."""
    with opened(state, writable=True) as directory:
        record = _desk(directory, by).refuse(full_id(directory, withdrawal), reason)
    typer.echo(f"Withdrawal {record.id}: refused. Tell the requester why, and where to complain.")
    _say_how_back(record)


@app.command()
def hold(
    withdrawal: WithdrawalArgument,
    reason: ReasonOption,
    until: Annotated[
        dt.datetime | None, typer.Option("--until", formats=["%Y-%m-%d"], help="When to look at it again.")
    ] = None,
    state: StateOption = None,
    by: ByOption = None,
) -> None:
    """Put a withdrawal on legal hold: who leaves stays out, nothing is unlearned or erased."""
    with opened(state, writable=True) as directory:
        end = None if until is None else until.date()
        record = _desk(directory, by).hold(full_id(directory, withdrawal), reason, end)
    typer.echo(f"Withdrawal {record.id}: on legal hold. Tell the requester why.")


@app.command()
def release(
    withdrawal: WithdrawalArgument, reason: ReasonOption, state: StateOption = None, by: ByOption = None
) -> None:
    """End a legal hold; the withdrawal goes on."""
    with opened(state, writable=True) as directory:
        record = _desk(directory, by).release(full_id(directory, withdrawal), reason)
    typer.echo(f"Withdrawal {record.id}: {record.state.value}, due {record.due_at:%Y-%m-%d}.")
    typer.echo("`reconsent unlearn` carries it out, or the run that is under way.")


@app.command()
def cancel(
    withdrawal: WithdrawalArgument, reason: ReasonOption, state: StateOption = None, by: ByOption = None
) -> None:
    """Cancel a withdrawal because who asked wants it no more."""
    with opened(state, writable=True) as directory:
        record = _desk(directory, by).cancel(full_id(directory, withdrawal), reason)
    typer.echo(f"Withdrawal {record.id}: cancelled.")
    _say_how_back(record)


@app.command("grant-in-part")
def grant_in_part(
    withdrawal: WithdrawalArgument, reason: ReasonOption, state: StateOption = None, by: ByOption = None
) -> None:
    """Grant in part: contributions are erased and who leaves stays out, the models are kept.

    The reason names the legal basis on which the models are kept.
    """
    with opened(state, writable=True) as directory:
        record = _desk(directory, by).grant_in_part(full_id(directory, withdrawal), reason)
    typer.echo(f"Withdrawal {record.id}: granted in part; `reconsent unlearn` carries it out.")


@app.command("accept-clock")
def accept_clock(state: StateOption = None, by: ByOption = None) -> None:
    """Say that the clock is right now, and was ahead when the register was last written to.

    The register refuses to go on before its newest entry: deadlines would be computed from a wrong moment.
    The ledger says for ever that this was done.
    """
    with opened(state, writable=True) as directory:
        wrong = _desk(directory, by).accept_clock()
    typer.echo("Noted: entries from here on may be earlier than those before.")
    for record in wrong:
        typer.echo(
            f"Withdrawal {record.id} was filed by the wrong clock; its deadline, {record.due_at:%Y-%m-%d}, "
            "may be wrong. Answer it a month after it was really received, and say so in a note."
        )


@app.command()
def note(
    withdrawal: WithdrawalArgument,
    text: Annotated[str | None, typer.Argument(help="The note.", show_default=False)] = None,
    attach: Annotated[
        list[Path] | None, typer.Option("--attach", help="Document to record by its SHA-256; repeatable.")
    ] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="Who attends to it from now on.")] = None,
    channel: ChannelOption = None,
    agreement: AgreementOption = None,
    requester_role: RoleOption = None,
    identity_check: IdentityOption = None,
    state: StateOption = None,
    by: ByOption = None,
) -> None:
    """Add a note, documents (by their hash; the files stay where they are), a new owner, or how it came in.

    What was on record before of how it came in is kept with the correction.
    """
    from unlearning.request import attachment_of

    intake = Intake(
        channel=channel, agreement=agreement, requester_role=requester_role, identity_check=identity_check
    )
    if text is None and not attach and owner is None and not intake.stated:
        raise WithdrawalError(
            "There is nothing to note.",
            "Give a text, --attach, --owner, --channel, --agreement, --requester-role or --identity-check.",
        )
    documents = [attachment_of(path) for path in attach or []]
    with opened(state, writable=True) as directory:
        desk, id_ = _desk(directory, by), full_id(directory, withdrawal)
        with directory.session():
            if text is not None:
                desk.note(id_, text)
            for document in documents:
                desk.attach(id_, document)
            if owner is not None:
                desk.assign(id_, owner)
            desk.correct(id_, intake)
    for document in documents:
        typer.echo(f"{document.sha256}  {document.name}")
    typer.echo(f"Withdrawal {id_}: noted.")


@app.command()
def notify(
    withdrawal: WithdrawalArgument,
    recipients: Annotated[
        list[str] | None,
        typer.Argument(help="Recipients who were told, as `show` names them.", show_default=False),
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody who was not told before.")] = False,
    how: Annotated[str, typer.Option("--how", help="How they were told.")] = "in writing",
    state: StateOption = None,
    by: ByOption = None,
) -> None:
    """Put on record that recipients of the revoked models were told (GDPR Art. 19)."""
    from server.persistence import Withdrawals
    from server.recipients import recipients_of

    with opened(state, writable=True) as directory:
        id_ = full_id(directory, withdrawal)
        known = recipients_of(directory, Withdrawals(directory).get(id_))
        names = [recipient.name for recipient in known]
        if unknown := sorted(set(recipients or []) - set(names)):
            raise WithdrawalError(
                f"'{unknown[0]}' received none of the models of withdrawal {id_}.",
                f"Recipients are: {', '.join(names)}." if names else "It has no recipients.",
            )
        waiting = [recipient.name for recipient in known if recipient.notified_at is None]
        told = [name for name in names if name in waiting and (everybody or name in (recipients or []))]
        desk = _desk(directory, by)
        with directory.session():
            for name in told:
                desk.notified(id_, name, how)
    rest = [name for name in waiting if name not in told]
    typer.echo(f"Told: {', '.join(told) or 'nobody new'}.")
    typer.echo(f"Not told yet: {', '.join(rest)}." if rest else "Every recipient has been told.")


def _desk(directory: Any, by: str | None) -> PrivacyDesk:
    from server.persistence import PrivacyDesk

    return PrivacyDesk(directory, actor(by))


def _say_how_back(record: WithdrawalRecord) -> None:
    if record.site_stays:
        typer.echo(f"Tell {', '.join(record.sites)}, whose policy still leaves the patients out.")
        return
    for site in record.sites:
        typer.echo(
            f"The key of {site} stays refused: it takes part again once its node has a new key "
            f"(`reconsent site add {site} --public-key FILE`)."
        )


def _left(entry: dict[str, Any]) -> str:
    if entry["overdue"]:
        return f"[bold red]OVERDUE by {-entry['days_left']} d[/bold red]"
    if entry["closed_at"]:
        return "closed late" if entry["late"] else ""
    return f"{entry['days_left']} d"


def _held(entry: dict[str, Any]) -> str:
    return f" until {entry['held_until']}" if entry["held_until"] else ""


def _print_details(found: dict[str, Any], ground: str, intake: Intake) -> None:
    console = Console()

    def line(label: str, text: object) -> None:
        if text not in (None, ""):
            console.print(f"[bold]{label:<10}[/bold] {escape(str(text))}", highlight=False)

    line(
        found["id"],
        ("SIMULATION: not evidence; " if found["simulated"] else "") + found["state"] + _held(found),
    )
    from unlearning.request import PATIENTS_ONLY

    scope = "the whole site" if found["scope"] == "site" else f"{found['patients']} patients of the site"
    if found["scope"] == PATIENTS_ONLY:
        scope += ", which stays"
    line("sites", f"{', '.join(found['sites'])} ({scope})")
    line("ground", ground)
    line("reason", found["reason"])
    line("asked by", found["requested_by"])
    line("role", intake.words.get("requester_role"))
    line("came in", intake.words.get("channel"))
    line("checked", intake.words.get("identity_check"))
    line("agreement", intake.agreement)
    line("not said", "; ".join(intake.missing))
    line("number", found["request_id"])
    line("owner", found["owner"])
    line("received", found["received_at"])
    due = f"{found['due_local']} ({found['time_zone']})" + (", extended" if found["extended_at"] else "")
    line("due", due)
    if found["overdue"]:
        console.print(f"           [bold red]OVERDUE by {-found['days_left']} days[/bold red]")
    for title, rows in (("steps", found["events"]), ("on record", found["acts"])):
        if rows:
            console.print(f"[bold]{title}[/bold]")
        for row in rows:
            what = row["to"] if "to" in row and "note" in row else row["kind"]
            detail = row.get("note") or _words(row)
            console.print(f"  {row['at'][:19]}  {what:<12} {escape(detail)} (by {escape(row['actor'])})",
                          highlight=False, markup=True)  # fmt: skip
    if found["recipients"]:
        console.print("[bold]recipients of its models[/bold]")
    for entry in found["recipients"]:
        told = f"told {entry['notified_at'][:10]}, {entry['how']}" if entry["notified_at"] else "NOT TOLD"
        versions = f"{len(entry['versions'])} versions"
        console.print(f"  {escape(entry['recipient']):<24} {versions:<14} {escape(told)}", highlight=False)


_BULKY = {"at", "actor", "kind", "code", "settings", "packages"}


def _words(act: dict[str, Any]) -> str:
    kept = {
        key: len(value) if isinstance(value, list) else value
        for key, value in act.items()
        if key not in _BULKY and not isinstance(value, dict)
    }
    return "; ".join(f"{key}: {value}" for key, value in kept.items() if value is not None)
