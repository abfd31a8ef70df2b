"""Named checkpoints of a run, to resume it from."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from reconsent.errors import StateError
from server.persistence.json_values import dump_json
from server.persistence.state import StateDirectory
from server.persistence.tables import ProgressRow


class RunProgress:
    """Key and JSON value, for small things such as a strategy's state.

    Written in the transaction of a round, a checkpoint and the round it belongs to are there together or
    not at all.
    """

    def __init__(self, state: StateDirectory) -> None:
        self._state = state

    def put(self, key: str, value: Any, *, session: Session | None = None) -> None:
        """Store ``value`` under ``key``, over what was there.

        Raises
        ------
        StateError
            If the value is not made of dictionaries, lists, text, numbers, booleans and ``None``.
        """
        try:
            dump_json(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise StateError(
                f"The checkpoint '{key}' cannot be stored as JSON: {error}.",
                "Convert arrays to lists, or keep them as a model version.",
            ) from error
        with self._state.session(session) as own:
            now = dt.datetime.now(dt.UTC)
            row = own.get(ProgressRow, key)
            if row is None:
                own.add(ProgressRow(key=key, value=value, updated_at=now))
            else:
                row.value, row.updated_at = value, now

    def get(self, key: str, default: Any = None, *, session: Session | None = None) -> Any:
        """The value under ``key``; ``default`` if there is none."""
        with self._state.reading(session) as own:
            row = own.get(ProgressRow, key)
            return default if row is None else row.value

    def delete(self, key: str, *, session: Session | None = None) -> None:
        """Drop ``key``; an unknown one is no error."""
        with self._state.session(session) as own:
            row = own.get(ProgressRow, key)
            if row is not None:
                own.delete(row)

    def keys(self, *, session: Session | None = None) -> list[str]:
        """All keys, sorted."""
        with self._state.reading(session) as own:
            return list(own.scalars(select(ProgressRow.key).order_by(ProgressRow.key)))
