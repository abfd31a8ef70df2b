"""What a run of a deployed consortium is asked to do, and the way it tells of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging import ERROR, INFO
from typing import Literal, Self, cast, get_args

from reconsent.errors import ConfigError, ReconsentError
from reconsent.log_lines import belonging, plain, tell
from server.bookkeeping import MAIN
from server.coordinator import Coordinator
from server.events import Event, announce, listening
from server.names import RUN as RUN
from server.names import TARGET as TARGET
from server.persistence import RunEvents, RunProgress, StateDirectory

TaskKind = Literal["plan", "train", "resume", "unlearn"]


@dataclass(frozen=True, slots=True)
class Task:
    """What a run is asked to do.

    Attributes
    ----------
    kind
        ``plan``: what the consortium file says, withdrawals and all (simulations); ``train``: so many further
        rounds; ``resume``: go on with what a former run was asked; ``unlearn``: only the withdrawals that
        are due. All but ``plan`` carry out filed withdrawals before anything else, and between rounds.
    rounds
        Of ``train``.
    request
        What log lines name as the correlation of its work; empty: the run.
    """

    kind: TaskKind
    rounds: int = 0
    request: str = ""

    @classmethod
    def of(cls, run_config: Mapping[str, object]) -> Self:
        """The task in Flower's run configuration.

        Raises
        ------
        ConfigError
            If it is unknown, or to train without a number of rounds.
        """
        kind, rounds = str(run_config.get("task") or "plan"), int(str(run_config.get("rounds") or 0))
        if kind not in get_args(TaskKind):
            raise ConfigError(f"There is no task '{kind}'.", f"Tasks are: {', '.join(get_args(TaskKind))}.")
        if kind == "train" and rounds < 1:
            raise ConfigError(f"Training was asked for {rounds} rounds.", "Ask for one round at least.")
        return cls(cast("TaskKind", kind), rounds, str(plain(run_config.get("request")) or ""))


class Service:
    """Carries out the tasks of a deployed consortium.

    Parameters
    ----------
    coordinator
        Of the consortium; its state keeps what was asked, so that a run that is killed can be resumed.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._progress = RunProgress(coordinator.state)

    def carry_out(self, task: Task) -> None:
        """Do it; what remains after a failure is done by ``resume``.

        Raises
        ------
        ReconsentError
            Whatever ended it.
        """
        target = self._target(task)
        self._of.meet()
        filed = self._of.withdrawals.open()
        self._of.initialise(leaving={site for withdrawal in filed for site in withdrawal.sites})
        while True:
            self._carry_out_withdrawals()
            if self._of.train(target, pausing=True):
                break
        self._carry_out_withdrawals()
        announce(Event("done", "The run has ended."))

    def _target(self, task: Task) -> int:
        done = self._of.books.log.count(MAIN, "train")
        if task.kind == "train":
            target = done + task.rounds
            self._progress.put(TARGET, target)
            return target
        return max(done, int(self._progress.get(TARGET, 0))) if task.kind == "resume" else done

    def _carry_out_withdrawals(self) -> None:
        while due := self._of.withdrawing.due():
            self._of.withdrawing.go_on(due[0])


@contextmanager
def recording(state: StateDirectory, run: str, task: Task) -> Iterator[None]:
    """Write every event of a run to the state database, and how the run ended."""
    events, progress = RunEvents(state), RunProgress(state)

    def write(event: Event) -> None:
        if event.kind == "done":
            # Before it is said: who hears it may look at once.
            note("completed")
        tell(INFO, event.kind, event.text, **({"stage": event.stage} if event.stage else {}))
        events.append(
            run,
            event.kind,
            event.text,
            stage=event.stage,
            index=event.index,
            total=event.total,
            metrics=event.metrics,
        )

    def note(status: str, error: str = "") -> None:
        asked = {"id": run, "task": task.kind, "rounds": task.rounds, "status": status, "error": error}
        progress.put(RUN, asked)

    note("running")
    with listening(write), belonging(run=run, correlation=task.request or f"run-{run}"):
        try:
            yield
        except ReconsentError as error:
            tell(ERROR, "failed", str(error))
            # On a full disk neither can be written; what ended the run matters more.
            with suppress(ReconsentError):
                note("failed", str(error))
                events.append(run, "failed", str(error))
            raise
        note("completed")
