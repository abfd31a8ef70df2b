"""``reconsent train``, ``resume``, ``unlearn`` and ``attach``: runs of a deployed consortium."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cli.deployment import Deployment, StateOption
from reconsent.errors import DeployError, ReconsentError
from reconsent.log_lines import new_correlation

if TYPE_CHECKING:
    from server.persistence import RunEvent, StateDirectory

POLL_SECONDS = 0.5
"""Between two looks at what the run has written."""

LIFE_SECONDS = 8.0
"""Between two questions to the SuperLink whether the run still lives, while it writes nothing."""

END_SECONDS = 30.0
"""For the SuperLink to see that a run that has said its last word has ended."""

Detach = Annotated[bool, typer.Option("--detach", "-d", help="Submit, and do not wait for the end.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]


def train(
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Training rounds to add.")],
    state: StateOption = None,
    detach: Detach = False,
    quiet: Quiet = False,
) -> None:
    """Train a running consortium for more rounds, and watch.

    Withdrawals that were filed are carried out first, and between rounds. Ctrl-C ends the watching only:
    the run goes on, and `reconsent attach` returns to it.
    """
    _submit(Deployment.find(state), "train", rounds, detach=detach, quiet=quiet)


def resume(state: StateOption = None, detach: Detach = False, quiet: Quiet = False) -> None:
    """Go on with what an interrupted run was asked, from its last completed step.

    After a crash: `reconsent up` (or the supervisor of `reconsent server run`) starts what died, and
    `reconsent resume` takes the work up again.
    """
    _submit(Deployment.find(state), "resume", 0, detach=detach, quiet=quiet)


def unlearn(state: StateOption = None, detach: Detach = False, quiet: Quiet = False) -> None:
    """Carry out the withdrawals that were filed, and train no further."""
    _submit(Deployment.find(state), "unlearn", 0, detach=detach, quiet=quiet)


def attach(state: StateOption = None, quiet: Quiet = False) -> None:
    """Watch the run that is under way.

    If it has ended meanwhile, what it has left of a withdrawn site at the SuperLink is removed all the same.
    """
    from server.persistence import RunEvents

    deployment = Deployment.find(state)
    run = _under_way(deployment)
    if run is None:
        raise DeployError("No run is under way.", "`reconsent status` says how the last one ended.")
    with deployment.reading() as opened:
        events = RunEvents(opened)
        first = min(
            (e.number for e in events.after(0) if e.run == str(run)), default=events.last_number() + 1
        )
    _follow(deployment, run, first - 1, quiet=quiet)


def _submit(deployment: Deployment, task: str, rounds: int, *, detach: bool, quiet: bool) -> None:
    from deploy.application import application_directory
    from server.persistence import RunEvents

    running = _under_way(deployment)
    if running is not None:
        raise DeployError(
            f"Run {running} is under way, and a consortium runs one at a time.",
            "Watch it with `reconsent attach`; when it has ended, ask again.",
        )
    with deployment.reading() as state:
        last = RunEvents(state).last_number()
    request = new_correlation()
    run = deployment.control.submit_run(
        application_directory(deployment.layout.app),
        {
            "task": task,
            "rounds": rounds,
            "request": request,
            "state": str(deployment.layout.state),
            "consortium": str(deployment.layout.consortium),
        },
    )
    if detach:
        typer.echo(f"Run {run} was submitted ({request} in the logs). Watch it with `reconsent attach`.")
        return
    _follow(deployment, run, last, quiet=quiet)


def _follow(deployment: Deployment, run: int, last: int, *, quiet: bool) -> None:
    from cli.progress import ProgressBoard
    from server.events import Event

    console = Console()
    try:
        with ProgressBoard(console, quiet=quiet) as board, deployment.reading() as state:
            board.say(f"Run {run}. Ctrl-C ends the watching only; the run goes on.")
            for event in _events(deployment, state, run, last):
                if event.kind == "failed":
                    raise DeployError(
                        f"The run has failed: {event.text}", "Then go on with `reconsent resume`."
                    )
                board.listen(
                    Event(
                        event.kind,  # type: ignore[arg-type]
                        event.text,
                        event.stage,
                        event.index,
                        event.total,
                        event.metrics,
                    )
                )
    except DeployError:
        _clear_up(deployment)
        raise
    except KeyboardInterrupt:
        sys.stderr.write("\nThe run goes on. `reconsent attach` returns to it.\n")
        raise typer.Exit(130) from None
    _clear_up(deployment)
    if not quiet:
        console.print("The run has ended. `reconsent status` shows where the consortium stands.")


def _under_way(deployment: Deployment) -> int | None:
    """Id of the run under way; if there is none, one that nobody watched to its end is cleared up after."""
    run = deployment.running()
    if run is None:
        _clear_up(deployment)
    return run


def _clear_up(deployment: Deployment) -> None:
    """Do what only the SuperLink can, and what its run could not: leave nothing of a site that is gone.

    Its key is unregistered, if that was revoked by a run or while the SuperLink could not be told; and after
    a withdrawal has completed the SuperLink is emptied of messages, which hold the site's updates, too.
    """
    from deploy.admission import unregister_revoked
    from deploy.housekeeping import empty_superlink
    from server.persistence import Enrolments, StateDirectory
    from server.residues import unpurged

    with deployment.reading() as state:
        left = unpurged(state)
        revoked = Enrolments(state).to_unregister()
    if revoked:
        try:
            with StateDirectory.open(deployment.layout.state, exclusive=False) as opened:
                unregister_revoked(deployment.control, opened)
        except ReconsentError as error:
            names = ", ".join(sorted({enrolment.site for enrolment in revoked}))
            typer.echo(
                f"Warning: the SuperLink still lets the revoked key of {names} connect: {error.problem} "
                f"`{deployment.layout.starter}` tells it, and so does the next run.",
                err=True,
            )
    if not left:
        return
    try:
        empty_superlink(deployment.layout, patience=END_SECONDS)
    except ReconsentError as error:
        names = ", ".join(sorted({site for record in left for site in record.sites}))
        typer.echo(
            f"Warning: the SuperLink may still hold updates of {names}: {error.problem} "
            "`reconsent purge` removes them.",
            err=True,
        )


def _events(deployment: Deployment, state: StateDirectory, run: int, last: int) -> Iterator[RunEvent]:
    """The run's events after number ``last`` as they come, until the one that ends it.

    Raises
    ------
    DeployError
        If the run ended without a word.
    """
    from server.persistence import RunEvents

    log, heard = RunEvents(state), time.monotonic()
    while True:
        over = None
        if time.monotonic() - heard > LIFE_SECONDS:
            heard = time.monotonic()
            over = next((r for r in deployment.control.list_runs() if r.run_id == run and r.finished), None)
        for event in log.after(last):
            last, heard = event.number, time.monotonic()
            if event.run == str(run):
                yield event
                if event.kind in ("done", "failed"):
                    return
        if over is not None:
            raise DeployError(
                f"Run {run} ended without a word: {over.status}. {over.details}".rstrip(),
                f"Its log is {deployment.layout.log('superlink')}. "
                f"`{deployment.layout.starter}` starts what died, `reconsent resume` goes on from the last "
                "completed step.",
            )
        time.sleep(POLL_SECONDS)
