"""Going back to a former round: which ones the contributions allow, and what is dropped then."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from reconsent.errors import ContributionError
from unlearning.database import ContributionRow


def landmarks(session: Session, line: str) -> frozenset[int]:
    """Rounds after which a site took part for the first time: going back to one forgets it exactly."""
    query = (
        select(func.min(ContributionRow.round))
        .where(ContributionRow.line == line, ContributionRow.kind == "update")
        .group_by(ContributionRow.site)
    )
    return frozenset(first - 1 for first in session.scalars(query))


def can_rewind(session: Session, line: str, round_: int) -> bool:
    """Whether of every site that took part up to ``round_`` the running pair as of then is kept."""
    return not any(_lost(rows, round_) for rows in _by_site(session, line).values())


def rewind(session: Session, line: str, round_: int) -> list[str]:
    """Drop what came after ``round_`` from the index: the model goes back to where it was then.

    The rounds that are dropped are on no path to a model any more, so nobody missed them: the running pair
    of each site is moved to the last of them, and is not damped for them.

    Returns
    -------
    Paths of the files to unlink once the transaction is committed, relative to the cache's directory.

    Raises
    ------
    ContributionError
        If the running pair of a site as of ``round_`` is not kept.
    """
    sites = _by_site(session, line)
    last = max((row.round for rows in sites.values() for row in rows), default=round_)
    files = []
    for site, rows in sites.items():
        if _lost(rows, round_):
            raise ContributionError(
                f"The contributions of site '{site}' up to round {round_} were not kept, so the model cannot "
                "go back there.",
                "Train with contributions.anchors in the consortium file.",
            )
        for row in rows:
            if row.round > round_:
                files += [row.path] if row.path else []
                session.delete(row)
        session.flush()
        pairs = [row for row in rows if row.kind == "running" and row.round <= round_]
        if pairs:
            pairs[-1].round += last - round_
    session.flush()
    return files


def prune(session: Session, line: str, anchors: Collection[int]) -> list[str]:
    """Drop running pairs that are no site's newest, and as of which no anchor round wants the model.

    Returns
    -------
    Paths of the files to unlink once the transaction is committed, relative to the cache's directory.
    """
    files = []
    for rows in _by_site(session, line).values():
        for row, later in pairwise([row for row in rows if row.kind == "running"]):
            if not any(row.round <= anchor < later.round for anchor in anchors):
                files.append(row.path)
                session.delete(row)
    return files


def _by_site(session: Session, line: str) -> dict[str, list[ContributionRow]]:
    query = select(ContributionRow).where(ContributionRow.line == line).order_by(ContributionRow.round)
    found: dict[str, list[ContributionRow]] = {}
    for row in session.scalars(query):
        found.setdefault(row.site, []).append(row)
    return found


def _lost(rows: list[ContributionRow], round_: int) -> bool:
    took_part = [row.round for row in rows if row.kind == "update" and row.round <= round_]
    return bool(took_part) and took_part[-1] not in {row.round for row in rows if row.kind == "running"}
