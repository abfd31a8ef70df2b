"""``reconsent purge``: remove what Flower's SuperLink still keeps of messages, and so of sites' updates."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cli.deployment import StateOption


def purge(
    state: StateOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print what was there as JSON.")] = False,
) -> None:
    """Remove every message from the SuperLink's database, and every byte of them from its files.

    `reconsent train`, `resume` and `unlearn` do so by themselves when a withdrawal has completed, and so does
    every start of the SuperLink. This is for runs that nobody watched, and to see that nothing is left. The
    SuperLink may run, but no run may be under way.

    Example
    -------
      reconsent purge
    """
    from deploy.layout import Layout
    from deploy.residue import Residue
    from deploy.residue import purge as remove
    from reconsent.environment import state_path

    layout = Layout(state_path(state))
    found = [remove(layout.database(insecure=insecure)) for insecure in (False, True)]
    total = Residue(sum(one.rows for one in found), sum(one.bytes for one in found))
    if json_output:
        typer.echo(json.dumps({"objects": total.rows, "bytes": total.bytes}))
        return
    typer.echo(
        f"Removed {total.rows} objects of {total.bytes / 2**20:.1f} MiB."
        if total.rows
        else "There was nothing to remove; free pages and log were overwritten all the same."
    )
