"""The log of rounds: what happened in each, and what they cost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

from sqlalchemy import func, select, union
from sqlalchemy.orm import Session

from reconsent.errors import StateError
from server.persistence.ledger import Ledger
from server.persistence.ledger_entries import ROUND, ROUND_FAILED, failed_round_body, round_body
from server.persistence.round_records import (
    RoundCost,
    RoundRecord,
    failed_round_of,
    failed_row_of,
    round_of,
    row_of,
)
from server.persistence.state import StateDirectory
from server.persistence.tables import FailedRoundRow, ModelRow, RoundRow


class RoundLog:
    """The rounds in the order in which they were committed."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._ledger = Ledger(state)

    def append(self, record: RoundRecord, *, session: Session | None = None) -> RoundRecord:
        """Add a round. Adding it again returns what is there and changes nothing.

        Parameters
        ----------
        record
            The round; its ``created_at`` is ignored.
        session
            Transaction to take part in.

        Returns
        -------
        The round as it is in the log.

        Raises
        ------
        StateError
            If the log has this round with another model version.
        """
        with self._state.session(session) as own:
            row = self._row(own, record.line, record.kind, record.round)
            if row is None:
                row = row_of(record, dt.datetime.now(dt.UTC))
                own.add(row)
                own.flush()
                model = select(ModelRow.digest).where(ModelRow.id == record.model_version)
                self._ledger.append(ROUND, round_body(record, own.scalar(model)), session=own)
            elif row.model_version != record.model_version:
                raise StateError(
                    f"Round {record.round} ({record.kind}) of line '{record.line}' is already in the log "
                    f"with model version {row.model_version}, not {record.model_version}.",
                    "Resume after the last round of the line instead of repeating one that is committed.",
                )
            return round_of(row)

    def append_failed(self, record: RoundRecord, *, session: Session | None = None) -> None:
        """Put on record what became of the sites in a round of which nothing is kept.

        It is no round of the line: it is neither counted nor costed, and its number is used again.
        """
        with self._state.session(session) as own:
            own.add(failed_row_of(record, dt.datetime.now(dt.UTC)))
            self._ledger.append(ROUND_FAILED, failed_round_body(record), session=own)

    def failed(self, line: str, *, session: Session | None = None) -> list[RoundRecord]:
        """Every failed round of ``line``, oldest first."""
        with self._state.reading(session) as own:
            query = select(FailedRoundRow).where(FailedRoundRow.line == line).order_by(FailedRoundRow.number)
            return [failed_round_of(row) for row in own.scalars(query)]

    def everything(self, line: str, *, session: Session | None = None) -> list[RoundRecord]:
        """Rounds of ``line``, failed ones among them, in the order of time."""
        with self._state.reading(session) as own:
            records = [*self.all(line, session=own), *self.failed(line, session=own)]
        return sorted(records, key=lambda record: record.created_at or dt.datetime.min.replace(tzinfo=dt.UTC))

    def get(self, line: str, kind: str, round: int, *, session: Session | None = None) -> RoundRecord | None:
        """A round; ``None`` if it is not in the log."""
        with self._state.reading(session) as own:
            row = self._row(own, line, kind, round)
            return None if row is None else round_of(row)

    def all(self, line: str, *, session: Session | None = None) -> list[RoundRecord]:
        """Every round of ``line``, in the order in which they were committed."""
        with self._state.reading(session) as own:
            query = select(RoundRow).where(RoundRow.line == line).order_by(RoundRow.number)
            return [round_of(row) for row in own.scalars(query)]

    def lines(self, *, session: Session | None = None) -> list[str]:
        """The lines that have rounds, failed ones among them, by name."""
        query = union(select(RoundRow.line), select(FailedRoundRow.line))
        with self._state.reading(session) as own:
            return sorted(own.scalars(query))

    def count(self, line: str, kind: str | None = None, *, session: Session | None = None) -> int:
        """How many rounds ``line`` has: of ``kind``, or of all kinds."""
        query = select(func.count()).select_from(RoundRow).where(RoundRow.line == line)
        if kind is not None:
            query = query.where(RoundRow.kind == kind)
        with self._state.reading(session) as own:
            return own.scalar(query) or 0

    def last_round(self, line: str, *, session: Session | None = None) -> int:
        """The highest number of a round of ``line``, of whatever kind; 0 if it has none."""
        with self._state.reading(session) as own:
            return own.scalar(select(func.max(RoundRow.round)).where(RoundRow.line == line)) or 0

    def cost(self, line: str, kinds: Collection[str], *, session: Session | None = None) -> RoundCost:
        """What the rounds of ``kinds`` cost together along ``line``."""
        records = [record for record in self.all(line, session=session) if record.kind in kinds]
        sites = [outcome for record in records for outcome in record.sites.values()]
        return RoundCost(
            rounds=len(records),
            client_seconds=sum(outcome.seconds for outcome in sites),
            bytes_up=sum(outcome.bytes_up for outcome in sites),
            bytes_down=sum(outcome.bytes_down for outcome in sites),
            seconds=sum(record.seconds for record in records),
        )

    @staticmethod
    def _row(session: Session, line: str, kind: str, round: int) -> RoundRow | None:
        return session.scalar(
            select(RoundRow).where(RoundRow.line == line, RoundRow.kind == kind, RoundRow.round == round)
        )
