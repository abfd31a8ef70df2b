"""The index of the contribution cache: which files there are, and the numbers that stay without them."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from unlearning.contribution_files import StoredFile
from unlearning.database import ContributionRow
from unlearning.folding import Fold


class ContributionIndex:
    """Rows of one line of models; every call takes part in the caller's transaction.

    Parameters
    ----------
    line
        Which line of models the updates belong to.
    """

    def __init__(self, line: str) -> None:
        self._line = line

    def add(self, session: Session, fold: Fold, kind: str, file: StoredFile, *, norm: float) -> None:
        """Add what a round left of a site: its ``running`` pair or its ``update``."""
        row = ContributionRow(
            site=fold.site,
            round=fold.round,
            line=self._line,
            kind=kind,
            weight=fold.share,
            norm=norm,
            path=file.path,
            sha256=file.sha256,
            bytes=file.bytes,
            dtype=file.dtype,
            created_at=dt.datetime.now(dt.UTC),
            frozen=False,
        )
        session.add(row)

    def rows(
        self, session: Session, site: str | None = None, kind: str | None = None
    ) -> list[ContributionRow]:
        """Rows of a site, or of all, of one kind, or of both; oldest round first."""
        query = select(ContributionRow).where(ContributionRow.line == self._line)
        if site is not None:
            query = query.where(ContributionRow.site == site)
        if kind is not None:
            query = query.where(ContributionRow.kind == kind)
        return list(session.scalars(query.order_by(ContributionRow.round)))

    def last_round(self, session: Session) -> int:
        """The newest round of which anything is kept; 0 if nothing is."""
        query = select(func.max(ContributionRow.round)).where(ContributionRow.line == self._line)
        return session.scalar(query) or 0

    def sites(self, session: Session) -> list[str]:
        """Sites of which something is kept, by name."""
        query = select(ContributionRow.site).where(ContributionRow.line == self._line).distinct()
        return sorted(session.scalars(query))

    def size_bytes(self, session: Session) -> int:
        """Bytes of all files it names."""
        query = select(ContributionRow.bytes).where(ContributionRow.line == self._line)
        return sum(session.scalars(query))
