"""``reconsent purge``: remove what Flower's SuperLink still keeps of messages, and so of sites' updates."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from cli.deployment import StateOption
from reconsent.errors import ReconsentError, StateError

HOUR_SECONDS = 3600


def purge(
    state: StateOption = None,
    unless_running: Annotated[
        bool,
        typer.Option("--unless-running", help="A run that is under way is no error: then nothing is done."),
    ] = False,
    every: Annotated[
        float | None,
        typer.Option("--every", min=0.0001, help="Do it again after so many hours, until it is stopped."),
    ] = None,
    not_at_once: Annotated[
        bool, typer.Option("--not-at-once", help="With --every: the first time only after so many hours.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print what was there as JSON.")] = False,
) -> None:
    """Remove every message from the SuperLink's database, and kept updates that are older than they may be.

    `reconsent train`, `resume`, `unlearn` and `attach` empty the SuperLink by themselves when a withdrawal
    has completed, whether they watched the run or come later, and so does its every start. This is for runs
    after which none of them was given, and for a daily job where months may pass between runs: a run
    removes what is too old, but only while it runs. The ledger says when it was done. The SuperLink may
    run, but no run may be under way.

    With --every it stays, does it at once and then again and again; what goes wrong is said, and tried again
    the next time. `reconsent up` starts one by itself where `[contributions]` sets keep-days.

    Example
    -------
      reconsent purge --unless-running
    """
    from reconsent.environment import state_path

    directory = state_path(state)
    if every is None:
        _purge(directory, unless_running=unless_running, json_output=json_output)
        return
    stop = threading.Event()
    # As the first process of a container it would not be ended by the signal otherwise.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not (not_at_once and stop.wait(every * HOUR_SECONDS)):
        not_at_once = False
        try:
            _purge(directory, unless_running=True, json_output=json_output)
        except ReconsentError as error:
            typer.echo(str(error), err=True)
        if stop.wait(every * HOUR_SECONDS):
            return


def _purge(state: Path, *, unless_running: bool, json_output: bool) -> None:
    from deploy.backup import consortium_of
    from deploy.housekeeping import empty_superlink
    from deploy.layout import Layout
    from deploy.residue import RunUnderWayError
    from server.safekeeping import expire_between_runs

    layout = Layout(state)
    if not layout.state.is_dir():
        raise StateError(f"There is no state directory {layout.state}.", "Name it with --state.")
    try:
        total = empty_superlink(layout)
    except RunUnderWayError:
        if not unless_running:
            raise
        typer.echo("A run is under way, which removes by itself what is too old: nothing was done.", err=True)
        return
    config = consortium_of(layout, None)
    expired = None if config is None else expire_between_runs(layout.state, config)
    if json_output:
        typer.echo(json.dumps({"objects": total.rows, "bytes": total.bytes, "expired": expired or 0}))
        return
    if expired:
        typer.echo(f"Removed {expired} kept updates that were older than [contributions] allows.")
    if not any(layout.database(insecure=insecure).is_file() for insecure in (False, True)):
        typer.echo("No SuperLink has been started here, so there are no messages.")
        return
    typer.echo(
        f"Removed {total.rows} objects of {total.bytes / 2**20:.1f} MiB."
        if total.rows
        else "There was nothing to remove; free pages and log were overwritten all the same."
    )
