"""What the commands for a deployed consortium have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconsent.errors import DeployError

if TYPE_CHECKING:
    from deploy.flower_control import FlowerControl
    from deploy.layout import Layout
    from reconsent.config import ConsortiumConfig
    from server.persistence import StateDirectory

StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="State directory (default: RECONSENT_STATE, or ./reconsent-state).",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Deployment:
    """A consortium that was set up by ``reconsent up`` or ``reconsent server run``."""

    layout: Layout
    control: FlowerControl
    consortium: ConsortiumConfig

    @classmethod
    def find(cls, state: Path | None) -> Deployment:
        """The one in this state directory.

        Raises
        ------
        DeployError
            If there is none.
        """
        from deploy.flower_control import FlowerControl
        from deploy.layout import Layout
        from reconsent.config import load_consortium
        from reconsent.environment import state_path

        layout = Layout(state_path(state))
        if not layout.consortium.is_file():
            raise DeployError(
                f"There is no consortium in {layout.state}.",
                "Set one up with `reconsent up` or `reconsent server run`, or name it with --state.",
            )
        return cls(layout, FlowerControl(layout.flower_home), load_consortium(layout.consortium))

    @contextmanager
    def reading(self) -> Iterator[StateDirectory]:
        """The state, to look at."""
        from server.persistence import StateDirectory

        self._make_database()
        with StateDirectory.open(self.layout.state, writable=False) as state:
            yield state

    @contextmanager
    def writing(self) -> Iterator[StateDirectory]:
        """The state, for short transactions beside a running server."""
        from deploy.admission import open_beside_server

        with open_beside_server(self.layout.state) as state:
            yield state

    def running(self) -> int | None:
        """Id of the run under way; ``None`` if there is none.

        One whose server was killed counts as running for a minute at the SuperLink; it is stopped here.
        """
        for run in self.control.list_runs():
            if run.finished:
                continue
            if self._is_dead(str(run.run_id)):
                self._stop(run.run_id)
                continue
            return run.run_id
        return None

    def _stop(self, run_id: int) -> None:
        try:
            self.control.stop_run(run_id)
        except DeployError:
            # The minute may have been over just now, and then there is nothing to be stopped any more.
            if any(run.run_id == run_id and not run.finished for run in self.control.list_runs()):
                raise

    def _is_dead(self, run: str) -> bool:
        """Whether a run that had begun to work has no process any more: nobody holds the state."""
        from reconsent.errors import StateError
        from server.persistence import RunProgress, StateDirectory
        from server.service import RUN

        with self.reading() as state:
            last = RunProgress(state).get(RUN)
        if last is None or last["id"] != run:
            return False  # it is only starting
        try:
            StateDirectory.open(self.layout.state).close()
        except StateError:
            return False
        return True

    def _make_database(self) -> None:
        from server.persistence import StateDirectory
        from server.persistence.state import DATABASE

        if not (self.layout.state / DATABASE).exists():
            StateDirectory.open(self.layout.state).close()
