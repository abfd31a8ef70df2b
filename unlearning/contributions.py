"""The contribution cache: what the server keeps of every site's updates.

Per site one *running* pair of vectors, whatever the number of rounds,

* ``sum``: Σₜ pᵤᵗ Δᵤᵗ, the site's share in the path of the model (Wu et al. 2022), and
* ``specific``: Uᵤ ← (1 − a (1 − pᵤ)) Uᵤ + cᵤ with cᵤ = pᵤ/(1 − pᵤ) (Δᵤ − Δ̄) = Δ̄ − Δ̄₍without u₎, a
  first-order model of "trained with the site minus trained without it"; the damping a ≥ 0 stands for the
  remaining sites' pull back to their optimum (with a = 0 the identity
  w₀ + Σₜ Δ̄ᵗ₍without u₎ = w_T − Uᵤ holds exactly),

and, if asked for, a history of single updates. Files are safetensors, sealed by their site's own key where
keys are given; the index with their SHA-256 is a table of the state database, written in the same transaction
as the round they belong to. A file that does not match its hash is named and never used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

from reconsent.errors import ContributionError
from reconsent.files import AtomicWrites, unlink_all
from unlearning.cache_policy import CachePolicy
from unlearning.contribution_files import PLAIN_SUFFIX, ContributionFiles, StoredFile, unwritable
from unlearning.contribution_index import ContributionIndex
from unlearning.contribution_upkeep import ContributionUpkeep, RetentionLimits
from unlearning.database import ContributionRow
from unlearning.folding import Fold, FoldedPair, RunningKind
from unlearning.parameters import Vector
from unlearning.rewinding import can_rewind, landmarks, prune, rewind
from unlearning.sealing import SUFFIX
from unlearning.site_keys import SiteKeys
from unlearning.spool import SpooledUpdate, UpdateSpool

__all__ = ["CachePolicy", "ContributionCache", "discard"]

PARTS = ".*.part"
"""What a write that was cut off leaves behind."""

SITES_AT_ONCE = 2
"""Sites whose updates are in memory together while a round is folded in."""

LARGE_BYTES = 2**25
"""Of an update; from here on one site is folded in at a time."""


class ContributionCache:
    """Contributions of every site along one line of models.

    Parameters
    ----------
    directory
        Where the files are.
    transaction
        Opens a database transaction; :meth:`open` makes a self-contained cache with a database of its own.
    policy
        What is kept.
    line
        Which line of models the updates belong to.
    keys
        The sites' keys, by which new files are sealed; ``None`` leaves them readable.
    """

    def __init__(
        self,
        directory: Path,
        transaction: Callable[[], AbstractContextManager[Session]],
        policy: CachePolicy | None = None,
        *,
        line: str = "main",
        keys: SiteKeys | None = None,
    ) -> None:
        self._directory = directory
        self._files = ContributionFiles(directory, keys, line)
        self._transaction = transaction
        self.policy = policy or CachePolicy()
        self._line = line
        self._index = ContributionIndex(line)
        limits = RetentionLimits(self.policy.keep_rounds, self.policy.keep_days)
        self.upkeep = ContributionUpkeep(directory, self._files, transaction, line, limits)
        self._held: int | None = None
        self._told: Callable[[str], None] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @classmethod
    def open(
        cls, directory: Path, policy: CachePolicy | None = None, *, keys: SiteKeys | None = None
    ) -> ContributionCache:
        """A cache that keeps its index in ``directory/index.sqlite``, for use without Reconsent's server."""
        directory.mkdir(parents=True, exist_ok=True)
        engine = create_engine(f"sqlite:///{directory / 'index.sqlite'}")
        ContributionRow.metadata.create_all(engine, tables=[ContributionRow.__table__])  # type: ignore[list-item]
        sessions = sessionmaker(engine)

        @contextmanager
        def transaction() -> Iterator[Session]:
            with sessions.begin() as session:
                yield session

        return cls(directory, transaction, policy, keys=keys)

    def record(
        self, round_: int, spool: UpdateSpool, mean: Vector, *, session: Session | None = None
    ) -> list[Path]:
        """Fold the spooled updates of a round into the cache.

        Of two sites the update is in memory at a time, of a large model of one. New files stand beside the
        old ones, flushed to the disk; the index turns to them when the transaction commits, so a crash leaves
        the cache as it was before the round.

        Parameters
        ----------
        round_
            Number of the round; each site's rounds must increase.
        spool
            The round's accepted updates.
        mean
            Their weighted average Δ̄ ``(P,)``.
        session
            Transaction to take part in; a new one if ``None``.

        Returns
        -------
        Files that the new ones replace, to be unlinked once the transaction is committed (done here if
        ``session`` is ``None``).
        """
        if session is None:
            with self._transaction() as own:
                superseded = self.record(round_, spool, mean, session=own)
            discard(superseded)
            return []
        weights = spool.weights()
        folds = [self._fold(session, update, round_, weights[update.site]) for update in spool.updates()]
        # Reading, hashing and writing let other threads run; the database is used by this one only.
        try:
            at_once = SITES_AT_ONCE if mean.nbytes < LARGE_BYTES else 1
            with AtomicWrites() as writes, ThreadPoolExecutor(at_once) as threads:
                write = partial(self._write_fold, writes, spool, mean)
                stored = list(threads.map(write, [fold for fold, _ in folds]))
        except OSError as error:
            raise unwritable(f"The contributions of round {round_}", error) from error
        superseded = []
        anchors = self._anchors(session)
        for (fold, last), (running, update, sensitivity) in zip(folds, stored, strict=True):
            self._index.add(session, fold, "running", running, norm=sensitivity)
            self._index.add(session, fold, "update", update, norm=fold.norm)
            # Also of a site that missed the anchor round: until its next one it stood where it was then.
            if last is not None and not any(last.round <= anchor < round_ for anchor in anchors):
                superseded.append(self._directory / last.path)
                session.delete(last)
        return superseded

    @contextmanager
    def watched(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Within the block, call ``tell`` with the name of a site before what is kept of it is handed out.

        What :meth:`record` reads to add a round to a running pair leaves the cache in no other form, and
        is not told.
        """
        before, self._told = self._told, tell
        try:
            yield
        finally:
            self._told = before

    def running(self, site: str, kind: RunningKind, *, at_round: int | None = None) -> Vector:
        """The running vector ``(P,)`` of ``site``: now, or as it was at an anchor round.

        The specific contribution is damped for the rounds that the site has missed since it last took part.

        Raises
        ------
        ContributionError
            If nothing was kept of the site, or its file is altered.
        """
        with self._transaction() as session:
            rows = self._index.rows(session, site, "running")
            if at_round is not None:
                rows = [row for row in rows if row.round <= at_round]
            if not rows:
                raise ContributionError(
                    f"No contribution of site '{site}' is kept"
                    + (f" from round {at_round} or before." if at_round is not None else "."),
                    "A site that never took part has nothing to be unlearned.",
                )
            now = self._index.last_round(session)
            file, last = StoredFile.of(rows[-1]), rows[-1].round
        self._tell(site)
        found = self._files.read(file)[kind].copy()
        missed = (now if at_round is None else min(at_round, now)) - last
        if kind == "specific" and missed > 0 and self.policy.damping > 0:
            found *= np.float32(self.policy.decay(missed))
        return found

    def updates(self, site: str) -> Iterator[tuple[int, float, Vector]]:
        """Every kept ``(round, share p, update Δ (P,))`` of ``site``, oldest first; one is in memory."""
        with self._transaction() as session:
            rows = [row for row in self._index.rows(session, site, "update") if row.path]
            for row in rows:
                session.expunge(row)  # The transaction ends here, and files take their time.
        self._tell(site)
        for row in rows:
            yield row.round, row.weight, self._load(row)["update"]

    def update_of(self, site: str, round_: int) -> Vector:
        """The update ``(P,)`` of ``site`` in a round.

        Raises
        ------
        ContributionError
            If it was not kept, or its file is altered.
        """
        with self._transaction() as session:
            rows = [r for r in self._index.rows(session, site, "update") if r.round == round_ and r.path]
            if not rows:
                raise ContributionError(
                    f"The update of site '{site}' of round {round_} is not kept.",
                    "Train with contributions.history-every = 1, or use a method that needs no history.",
                )
            session.expunge(rows[0])
        self._tell(site)
        return self._load(rows[0])["update"].copy()

    def norms(self, site: str) -> list[float]:
        """‖Δ‖ of every update of ``site``, oldest first; kept even where the update itself is not."""
        with self._transaction() as session:
            return [row.norm for row in self._index.rows(session, site, "update")]

    def sensitivity(self, site: str, at_round: int) -> float:
        """Ψ of ``site`` as it was at a kept round, see :class:`FoldedPair`; 0 before it took part."""
        with self._transaction() as session:
            rows = [row for row in self._index.rows(session, site, "running") if row.round <= at_round]
            return rows[-1].norm if rows else 0.0

    def shares(self, site: str) -> dict[int, float]:
        """The share p of ``site`` in each round it took part in."""
        with self._transaction() as session:
            return {row.round: row.weight for row in self._index.rows(session, site, "update")}

    def kept_rounds(self, site: str) -> list[int]:
        """Rounds whose update of ``site`` is kept by itself, oldest first; reads no file."""
        with self._transaction() as session:
            return [row.round for row in self._index.rows(session, site, "update") if row.path]

    def last_round(self) -> int:
        """The newest round of which anything is kept; 0 if nothing is."""
        with self._transaction() as session:
            return self._index.last_round(session)

    def hold(self, round_: int) -> None:
        """Keep the running pairs as they stood after ``round_``: the rounds that follow may be discarded.

        Until :meth:`release`, and for as long as this object lives: say it again after a restart.
        """
        self._held = round_

    def release(self, *, session: Session) -> list[Path]:
        """End :meth:`hold`; returns files to unlink once the transaction is committed."""
        self._held = None
        return [self._directory / path for path in prune(session, self._line, self._anchors(session))]

    def can_rewind(self, round_: int) -> bool:
        """Whether the contributions as they stood after ``round_`` are kept; see :mod:`.rewinding`."""
        with self._transaction() as session:
            return can_rewind(session, self._line, round_)

    def rewind(self, round_: int, *, session: Session) -> list[Path]:
        """Drop what came after ``round_``; returns files to unlink once the transaction is committed.

        Raises
        ------
        ContributionError
            If the contributions as they stood then are not kept.
        """
        return [self._directory / path for path in rewind(session, self._line, round_)]

    def sites(self) -> list[str]:
        """Sites of which something is kept, by name."""
        with self._transaction() as session:
            return self._index.sites(session)

    def erase(self, sites: set[str], *, session: Session) -> list[Path]:
        """Drop every contribution of ``sites`` from the index.

        Returns
        -------
        The files to unlink once the transaction is committed.
        """
        files = []
        for site in sites:
            for row in self._index.rows(session, site):
                if row.path:
                    files.append(self._directory / row.path)
                session.delete(row)
            files += (self._directory / site).glob(PARTS)
        return files

    def problems(self) -> list[str]:
        """Every missing, truncated or altered file, in words; empty if the cache is whole."""
        found = []
        with self._transaction() as session:
            for row in self._index.rows(session):
                try:
                    if row.path:
                        self._load(row)
                except ContributionError as error:
                    found.append(error.problem)
        return found

    def size_bytes(self) -> int:
        """Bytes of all files the index names."""
        with self._transaction() as session:
            return self._index.size_bytes(session)

    def sweep(self) -> list[Path]:
        """Unlink files that no index row names, whole or in part (leftovers of a crash)."""
        with self._transaction() as session:
            known = {row.path for row in self._index.rows(session)}
        orphans = [
            file
            for suffix in (PLAIN_SUFFIX, SUFFIX)
            for file in self._directory.glob(f"*/*{suffix}")
            if str(file.relative_to(self._directory)) not in known
        ]
        orphans += self._directory.glob(f"*/{PARTS}")
        discard(orphans)
        return orphans

    def _fold(
        self, session: Session, update: SpooledUpdate, round_: int, share: float
    ) -> tuple[Fold, ContributionRow | None]:
        rows = self._index.rows(session, update.site, "running")
        last = rows[-1] if rows else None
        if last is not None and last.frozen:
            raise ContributionError(
                f"The contributions of site '{update.site}' are frozen: it has withdrawn.",
                "Nothing may be added to them.",
            )
        if last is not None and last.round >= round_:
            raise ContributionError(
                f"Round {round_} of site '{update.site}' is already in the cache (up to round {last.round})."
            )
        missed = 0 if last is None else round_ - last.round - 1
        decay = self.policy.decay(missed) * (1 - self.policy.damping * (1 - share))
        file = None if last is None else StoredFile.of(last)
        so_far = 0.0 if last is None else last.norm
        return Fold(update.site, round_, share, update.norm, decay, file, so_far), last

    def _write_fold(
        self, writes: AtomicWrites, spool: UpdateSpool, mean: Vector, fold: Fold
    ) -> tuple[StoredFile, StoredFile, float]:
        """Write a site's running pair after the round, and its update if it is one to be kept; and its Ψ."""
        delta = spool.get(fold.site)
        before = self._files.blocks(fold.file) if fold.file is not None else None
        pair = FoldedPair(fold, before, delta, mean)
        running = self._files.write_parts(writes, fold.site, fold.round, "running", pair, "float32")
        update = StoredFile.none(fold.site, fold.round)
        every = self.policy.history_every
        if every and fold.round % every == 0:
            kept, dtype = {"update": delta}, self.policy.history_dtype
            update = self._files.write(writes, fold.site, fold.round, "update", kept, dtype)
        return running, update, pair.sensitivity

    def _tell(self, site: str) -> None:
        if self._told is not None:
            self._told(site)

    def _load(self, row: ContributionRow) -> dict[str, Vector]:
        return self._files.read(StoredFile.of(row))

    def _anchors(self, session: Session) -> frozenset[int]:
        held = frozenset(() if self._held is None else (self._held,))
        return landmarks(session, self._line) | self.policy.anchor_rounds | held


def discard(files: list[Path]) -> None:
    """Unlink ``files``, and directories that are empty then; those already gone do not matter."""
    unlink_all(files)
    for directory in {file.parent for file in files}:
        with suppress(OSError):
            directory.rmdir()
