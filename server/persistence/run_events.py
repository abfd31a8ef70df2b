"""What happened in runs, for whoever watches from another process."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.persistence.state import StateDirectory
from server.persistence.tables import RunEventRow


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One event of a run; ``kind``, ``stage``, ``index`` and ``total`` as in :class:`server.events.Event`."""

    number: int
    at: dt.datetime
    run: str
    kind: str
    text: str
    stage: str
    index: int
    total: int
    metrics: Mapping[str, float]


class RunEvents:
    """The log of events; nothing in it decides anything."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state

    def append(
        self,
        run: str,
        kind: str,
        text: str,
        *,
        stage: str = "",
        index: int = 0,
        total: int = 0,
        metrics: Mapping[str, float] | None = None,
        session: Session | None = None,
    ) -> None:
        """Add an event of the run called ``run``."""
        with self._state.session(session) as own:
            own.add(
                RunEventRow(
                    at=dt.datetime.now(dt.UTC),
                    run=run,
                    kind=kind,
                    text=text,
                    stage=stage,
                    index=index,
                    total=total,
                    metrics=dict(metrics or {}),
                )
            )

    def after(self, number: int, *, session: Session | None = None) -> list[RunEvent]:
        """Events with a larger number, oldest first."""
        with self._state.reading(session) as own:
            query = select(RunEventRow).where(RunEventRow.number > number).order_by(RunEventRow.number)
            return [_event(row) for row in own.scalars(query)]

    def last_number(self, *, session: Session | None = None) -> int:
        """Number of the newest event; 0 if there is none."""
        with self._state.reading(session) as own:
            return own.scalar(select(func.max(RunEventRow.number))) or 0


def _event(row: RunEventRow) -> RunEvent:
    return RunEvent(
        row.number, row.at, row.run, row.kind, row.text, row.stage, row.index, row.total, row.metrics
    )
