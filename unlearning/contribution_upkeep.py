"""What is done to the contribution cache between rounds: what is too old goes, what is readable is sealed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from reconsent.files import AtomicWrites, unlink_all
from unlearning.contribution_files import PLAIN_SUFFIX, ContributionFiles, StoredFile, unwritable
from unlearning.database import ContributionRow
from unlearning.sealing import SUFFIX
from unlearning.vector_files import VectorType


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """How long single updates are kept.

    Attributes
    ----------
    rounds, days
        Those older than the last so many rounds of the line, or than so many days, are removed; ``None``:
        no limit.
    """

    rounds: int | None = None
    days: float | None = None


@dataclass(frozen=True, slots=True)
class Expired:
    """Single updates that were kept long enough.

    Attributes
    ----------
    sites
        Of which, by name.
    sha256
        Hashes of the files.
    files
        To be unlinked after the transaction.
    """

    sites: list[str]
    sha256: list[str]
    files: list[Path]

    @property
    def count(self) -> int:
        """How many."""
        return len(self.files)


class ContributionUpkeep:
    """Looks after the files of one line of the contribution cache, which makes it for itself."""

    def __init__(
        self,
        directory: Path,
        files: ContributionFiles,
        transaction: Callable[[], AbstractContextManager[Session]],
        line: str,
        limits: RetentionLimits,
    ) -> None:
        self._directory = directory
        self._files = files
        self._transaction = transaction
        self._line = line
        self._limits = limits

    def expire(self, *, session: Session, now: dt.datetime | None = None) -> Expired:
        """Remove single updates that are older than the limits.

        Their norms and shares stay, and so do running pairs. What is frozen by a withdrawal is left alone.

        Parameters
        ----------
        session
            Transaction to take part in.
        now
            The present moment, if it is not the clock's.

        Returns
        -------
        How many, and the files to unlink once the transaction is committed.
        """
        old: list[ColumnElement[bool]] = []
        if self._limits.rounds is not None:
            newest = select(func.max(ContributionRow.round)).where(ContributionRow.line == self._line)
            old.append(ContributionRow.round <= (session.scalar(newest) or 0) - self._limits.rounds)
        if self._limits.days is not None:
            moment = (now or dt.datetime.now(dt.UTC)) - dt.timedelta(days=self._limits.days)
            old.append(ContributionRow.created_at < moment)
        if not old:
            return Expired([], [], [])
        query = select(ContributionRow).where(
            ContributionRow.line == self._line,
            ContributionRow.kind == "update",
            ContributionRow.path != "",
            ContributionRow.frozen.is_(False),
            or_(*old),
        )
        sites, hashes, files = set(), [], []
        for row in session.scalars(query):
            sites.add(row.site)
            hashes.append(row.sha256)
            files.append(self._directory / row.path)
            row.path, row.sha256, row.bytes, row.dtype = "", "", 0, ""
        return Expired(sorted(sites), sorted(hashes), files)

    def seal_plain(self) -> int:
        """Seal files that were written before there were keys; returns how many.

        Raises
        ------
        ContributionError
            If one is altered, or cannot be written again.
        EncryptionError
            If a key cannot be used.
        """
        if self._files.keys is None:
            return 0
        plain = ContributionRow.path.endswith(PLAIN_SUFFIX)
        query = select(ContributionRow).where(ContributionRow.line == self._line, plain)
        with self._transaction() as session:
            rows = list(session.scalars(query))
            superseded = [self._directory / row.path for row in rows]
            try:
                with AtomicWrites() as writes:
                    for row in rows:
                        dtype: VectorType = "bfloat16" if row.dtype == "bfloat16" else "float32"
                        content = self._files.read(StoredFile.of(row))
                        file = self._files.write(writes, row.site, row.round, row.kind, content, dtype)
                        row.path, row.sha256, row.bytes = file.path, file.sha256, file.bytes
            except OSError as error:
                raise unwritable("The sealed contributions", error) from error
        unlink_all(superseded)
        return len(superseded)

    def all_sealed(self) -> bool:
        """Whether no file is kept that can be read without a key."""
        plain = (ContributionRow.path != "") & ~ContributionRow.path.endswith(SUFFIX)
        with self._transaction() as session:
            return session.scalar(select(ContributionRow.path).where(plain).limit(1)) is None

    def check_keys(self) -> None:
        """Make sure that the key of every site of which a sealed file is kept is there.

        Raises
        ------
        EncryptionError
            If one is missing.
        """
        if self._files.keys is None:
            return
        sealed = ContributionRow.path.endswith(SUFFIX)
        with self._transaction() as session:
            sites = sorted(session.scalars(select(ContributionRow.site).where(sealed).distinct()))
        for site in sites:
            self._files.keys.existing(site)
