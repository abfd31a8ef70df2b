"""``reconsent status``: where a consortium stands."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.deployment import Deployment, StateOption
from reconsent.errors import DeployError


def status(
    state: StateOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show sites and their nodes, rounds, model version, withdrawals and their state."""
    from server.status import status_of

    deployment = Deployment.find(state)
    with deployment.reading() as opened:
        found = status_of(opened, deployment.consortium)
    found = _online(deployment, found)
    if json_output:
        typer.echo(json.dumps(found, indent=2))
        return
    _print(found, Console())


def _online(deployment: Deployment, found: dict[str, Any]) -> dict[str, Any]:
    """Add what the processes say of themselves."""
    from deploy.local_consortium import LocalConsortium
    from deploy.superlink_health import superlink_health

    found["superlink"] = asdict(superlink_health(deployment.layout))
    found["processes"] = [
        {
            "name": component.name,
            "status": component.status,
            "pid": component.pid,
            "ports": component.ports,
            "log": str(component.log),
        }
        for component in LocalConsortium(deployment.layout.state).describe()
    ]
    try:
        nodes = {node.fingerprint: node.status for node in deployment.control.list_nodes()}
        active = deployment.running()
    except DeployError:
        nodes, active = {}, None
    found["starter"] = deployment.layout.starter
    found["running"] = None if active is None else str(active)
    for site in found["sites"]:
        key = site["key"]
        site["node"] = nodes.get(key["fingerprint"], "unknown") if key else "unknown"
        site["online"] = site["node"] == "online"
    run = found["run"]
    if run and run["status"] == "running" and found["running"] != run["id"]:
        run["status"] = "interrupted"
    return found


def _print(found: dict[str, Any], console: Console) -> None:
    model, run = found["model"], found["run"]
    console.print(f"[bold]{found['consortium']}[/bold]", highlight=False)
    console.print(f"rounds   {found['round']} trained, {found['target']} asked for", highlight=False)
    if model:
        console.print(
            f"model    {model['version']} ({model['kind']}, {model['status']}), "
            f"made of {', '.join(model['sites']) or 'no site yet'}"
            + (f"; forgotten: {', '.join(model['forgotten'])}" if model["forgotten"] else ""),
            highlight=False,
        )
    if run:
        console.print(f"run      {run['id']}: {run['task']}, {run['status']}", highlight=False)
        if run["error"]:
            console.print(f"         {run['error']}", highlight=False, style="red", markup=False)
        if run["status"] == "interrupted":
            starter = found["starter"]
            console.print(f"         `{starter}`, then `reconsent resume`, goes on.", highlight=False)
    link = found["superlink"]
    at = f" ({link['address']})" if link["address"] else ""
    console.print(f"link     SuperLink {link['health']}{at}", highlight=False, markup=False)
    if found["processes"]:
        table = Table("process", "status", "pid", box=box.SIMPLE)
        for process in found["processes"]:
            table.add_row(process["name"], process["status"], str(process["pid"] or ""))
        console.print(table)
    table = Table("site", "organ", "status", "node", "slices", "rounds", "unusable", box=box.SIMPLE)
    for site in found["sites"]:
        rounds = f"{site['first_round']}-{site['last_round']}" if site["first_round"] else "none"
        table.add_row(
            site["name"],
            site["organ"],
            site["status"],
            site["node"],
            str(site["num_examples"] or ""),
            rounds,
            str(found["refused_replies"].get(site["name"], 0)),
        )
    console.print(table)
    if found["privacy"]:
        console.print(_privacy(found["privacy"]))
    failed = found["failed_rounds"]["last"]
    if failed and not failed["repeated"]:
        when = f"round {failed['round']} ({failed['kind']}) failed at {failed['at'][:19]} UTC"
        console.print(f"{when}; nothing of it was kept:", highlight=False, style="red")
        for name, outcome in failed["sites"].items():
            why = f" ({outcome['reason']})" if outcome["reason"] else ""
            console.print(f"  {name}: {outcome['outcome']}{why}", highlight=False, markup=False)
    for name, refusal in found["refusals"].items():
        rounds = f"{refusal['count']} round" + ("s" if refusal["count"] > 1 else "")
        text = f"{name} has itself refused {rounds}, last: {refusal['last']}"
        console.print(text, highlight=False, markup=False)
    if found["withdrawals"]:
        table = Table("withdrawal", "site", "state", "asked by", "due", "last step", box=box.SIMPLE)
        table.columns[0].no_wrap = True
        for entry in found["withdrawals"]:
            stands = entry["state"] + (f" until {entry['held_until']}" if entry["held_until"] else "")
            row = (entry["id"], entry["site"], stands, escape(entry["requested_by"]))
            day = entry["due_local"][:10]
            due = f"[bold red]{day} OVERDUE[/bold red]" if entry["overdue"] else day
            table.add_row(*row, due, escape(entry["note"]))
        console.print(table)
    if found["unpurged"]:
        names = ", ".join(found["unpurged"])
        text = f"The SuperLink may still hold updates of {names}: `reconsent purge` when no run is under way."
        console.print(text, highlight=False)


def _privacy(spending: list[dict[str, Any]]) -> Table:
    """What each site told of its budget; it keeps the account itself."""
    table = Table("privacy of", "one", "ε spent", "of at most", "δ", "as of round", "", box=box.SIMPLE)
    for entry in spending:
        said = ""
        if entry["sits_out_since"]:
            said = f"[bold red]sits out since round {entry['sits_out_since']}[/bold red]"
            said += f": {escape(entry['reason'])}" if entry["reason"] else ""
        if entry["unit"] is None:
            table.add_row(entry["site"], "unknown", "unknown", "unknown", "unknown", "never", said)
            continue
        table.add_row(
            entry["site"],
            entry["unit"],
            f"{entry['spent']:.4g}",
            "no limit" if entry["ceiling"] is None else f"{entry['ceiling']:.4g}",
            f"{entry['delta']:g}",
            str(entry["round"]),
            said,
        )
    return table
