"""To whom model versions were given outside of the consortium."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.persistence.ledger import Ledger
from server.persistence.ledger_entries import MODEL_EXPORTED, role
from server.persistence.state import StateDirectory
from server.persistence.tables import ExportRow
from server.persistence.versions import ModelVersion


@dataclass(frozen=True, slots=True)
class Export:
    """A model version that left.

    Attributes
    ----------
    at, actor
        When (UTC), and who gave it.
    version, digest
        Which version, and the SHA-256 of its arrays.
    recipient
        To whom.
    form
        Format of the file.
    """

    at: dt.datetime
    version: str
    digest: str
    recipient: str
    actor: str
    form: str


class Exports:
    """The list of exports, to which can only be added."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._ledger = Ledger(state)

    def add(
        self, version: ModelVersion, recipient: str, *, actor: str, form: str, session: Session | None = None
    ) -> None:
        """Put on record that ``version`` is given to ``recipient``: before the file is written."""
        with self._state.session(session) as own:
            now = dt.datetime.now(dt.UTC)
            own.add(
                ExportRow(
                    at=now,
                    version=version.id,
                    digest=version.digest,
                    recipient=recipient,
                    actor=actor,
                    form=form,
                )
            )
            own.flush()
            body = {"version": version.id, "sha256": version.digest, "form": form, "by": role(actor)}
            self._ledger.append(MODEL_EXPORTED, body, session=own)

    def all(self, *, session: Session | None = None) -> list[Export]:
        """Every export, oldest first."""
        with self._state.reading(session) as own:
            rows = own.scalars(select(ExportRow).order_by(ExportRow.number))
            return [Export(r.at, r.version, r.digest, r.recipient, r.actor, r.form) for r in rows]
