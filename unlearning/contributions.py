"""The contribution cache: what the server keeps of every site's updates.

Per site one *running* pair of vectors, whatever the number of rounds,

* ``sum``: Σₜ pᵤᵗ Δᵤᵗ, the site's share in the path of the model (Wu et al. 2022), and
* ``specific``: Uᵤ ← (1 − a (1 − pᵤ)) Uᵤ + cᵤ with cᵤ = pᵤ/(1 − pᵤ) (Δᵤ − Δ̄) = Δ̄ − Δ̄₍without u₎, a
  first-order model of "trained with the site minus trained without it"; the damping a ≥ 0 stands for the
  remaining sites' pull back to their optimum (with a = 0 the identity
  w₀ + Σₜ Δ̄ᵗ₍without u₎ = w_T − Uᵤ holds exactly),

and, if asked for, a history of single updates. Files are safetensors; the index with their SHA-256 is a
table of the state database, written in the same transaction as the round they belong to. A file that does
not match its hash is named and never used.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.torch
import torch
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from reconsent.errors import ContributionError
from reconsent.files import sha256_of, write_atomically
from unlearning.database import ContributionRow
from unlearning.parameters import Vector
from unlearning.spool import UpdateSpool

PARTS = ".*.part"
"""What a write that was cut off leaves behind."""

RunningKind = Literal["sum", "specific"]


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What is kept.

    Attributes
    ----------
    damping
        a of the specific contribution; 0 keeps it undamped.
    history_every
        Keep each k-th update by itself; 0 keeps none.
    history_dtype
        ``float32`` or ``bfloat16``.
    anchor_rounds
        Rounds after which a copy of the running pair stays.
    """

    damping: float = 0.0
    history_every: int = 0
    history_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    anchor_rounds: frozenset[int] = frozenset()


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
    """

    def __init__(
        self,
        directory: Path,
        transaction: Callable[[], AbstractContextManager[Session]],
        policy: CachePolicy | None = None,
        *,
        line: str = "main",
    ) -> None:
        self._directory = directory
        self._transaction = transaction
        self.policy = policy or CachePolicy()
        self._line = line
        directory.mkdir(parents=True, exist_ok=True)

    @classmethod
    def open(cls, directory: Path, policy: CachePolicy | None = None) -> ContributionCache:
        """A cache that keeps its index in ``directory/index.sqlite``, for use without Reconsent's server."""
        directory.mkdir(parents=True, exist_ok=True)
        engine = create_engine(f"sqlite:///{directory / 'index.sqlite'}")
        ContributionRow.metadata.create_all(engine, tables=[ContributionRow.__table__])  # type: ignore[list-item]
        sessions = sessionmaker(engine)

        @contextmanager
        def transaction() -> Iterator[Session]:
            with sessions.begin() as session:
                yield session

        return cls(directory, transaction, policy)

    def record(
        self, round_: int, spool: UpdateSpool, mean: Vector, *, session: Session | None = None
    ) -> list[Path]:
        """Fold the spooled updates of a round into the cache.

        One site is in memory at a time. New files stand beside the old ones; the index turns to them when
        the transaction commits, so a crash leaves the cache as it was before the round.

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
        superseded = []
        weights = spool.weights()
        for update in spool.updates():
            share = weights[update.site]
            delta = spool.get(update.site)
            superseded += self._fold(session, update.site, round_, share, delta, mean)
            self._keep_update(session, update.site, round_, share, update.norm, delta)
        return superseded

    def running(self, site: str, kind: RunningKind, *, at_round: int | None = None) -> Vector:
        """The running vector ``(P,)`` of ``site``: now, or as it was at an anchor round.

        Raises
        ------
        ContributionError
            If nothing was kept of the site, or its file is altered.
        """
        with self._transaction() as session:
            rows = self._rows(session, site, "running")
            if at_round is not None:
                rows = [row for row in rows if row.round <= at_round]
            if not rows:
                raise ContributionError(
                    f"No contribution of site '{site}' is kept"
                    + (f" from round {at_round} or before." if at_round is not None else "."),
                    "A site that never took part has nothing to be unlearned.",
                )
            return self._load(rows[-1])[kind]

    def updates(self, site: str) -> Iterator[tuple[int, float, Vector]]:
        """Every kept ``(round, share p, update Δ (P,))`` of ``site``, oldest first; one is in memory."""
        with self._transaction() as session:
            rows = [row for row in self._rows(session, site, "update") if row.path]
            for row in rows:
                session.expunge(row)  # The transaction ends here, and files take their time.
        for row in rows:
            yield row.round, row.weight, self._load(row)["update"]

    def norms(self, site: str) -> list[float]:
        """‖Δ‖ of every update of ``site``, oldest first; kept even where the update itself is not."""
        with self._transaction() as session:
            return [row.norm for row in self._rows(session, site, "update")]

    def shares(self, site: str) -> dict[int, float]:
        """The share p of ``site`` in each round it took part in."""
        with self._transaction() as session:
            return {row.round: row.weight for row in self._rows(session, site, "update")}

    def last_round(self) -> int:
        """The newest round of which anything is kept; 0 if nothing is."""
        with self._transaction() as session:
            query = select(func.max(ContributionRow.round)).where(ContributionRow.line == self._line)
            return session.scalar(query) or 0

    def sites(self) -> list[str]:
        """Sites of which something is kept, by name."""
        with self._transaction() as session:
            query = select(ContributionRow.site).where(ContributionRow.line == self._line).distinct()
            return sorted(session.scalars(query))

    def erase(self, sites: set[str], *, session: Session) -> list[Path]:
        """Drop every contribution of ``sites`` from the index.

        Returns
        -------
        The files to unlink once the transaction is committed.
        """
        files = []
        for site in sites:
            for row in self._rows(session, site, None):
                if row.path:
                    files.append(self._directory / row.path)
                session.delete(row)
            files += (self._directory / site).glob(PARTS)
        return files

    def problems(self) -> list[str]:
        """Every missing, truncated or altered file, in words; empty if the cache is whole."""
        found = []
        with self._transaction() as session:
            query = select(ContributionRow).where(ContributionRow.line == self._line)
            for row in session.scalars(query):
                try:
                    if row.path:
                        self._load(row)
                except ContributionError as error:
                    found.append(error.problem)
        return found

    def size_bytes(self) -> int:
        """Bytes of all files the index names."""
        with self._transaction() as session:
            query = select(ContributionRow.bytes).where(ContributionRow.line == self._line)
            return sum(session.scalars(query))

    def sweep(self) -> list[Path]:
        """Unlink files that no index row names, whole or in part (leftovers of a crash)."""
        with self._transaction() as session:
            known = {
                row.path
                for row in session.scalars(select(ContributionRow).where(ContributionRow.line == self._line))
            }
        orphans = [
            file
            for file in self._directory.glob("*/*.safetensors")
            if str(file.relative_to(self._directory)) not in known
        ]
        orphans += self._directory.glob(f"*/{PARTS}")
        discard(orphans)
        return orphans

    def _fold(
        self, session: Session, site: str, round_: int, share: float, delta: Vector, mean: Vector
    ) -> list[Path]:
        rows = self._rows(session, site, "running")
        last = rows[-1] if rows else None
        if last is None:
            total, specific = np.zeros_like(delta), np.zeros_like(delta)
            missed = 0
        else:
            if last.frozen:
                raise ContributionError(
                    f"The contributions of site '{site}' are frozen: it has withdrawn.",
                    "Nothing may be added to them.",
                )
            if last.round >= round_:
                raise ContributionError(
                    f"Round {round_} of site '{site}' is already in the cache (up to round {last.round})."
                )
            running = self._load(last)
            total, specific = running["sum"], running["specific"]
            missed = round_ - last.round - 1
        total += np.float32(share) * delta
        # In rounds the site missed it added nothing, but the others went on pulling (p = 0).
        specific *= np.float32((1 - self.policy.damping) ** missed * (1 - self.policy.damping * (1 - share)))
        specific += specific_contribution(delta, mean, share)
        row = self._save(
            session,
            ContributionRow(site=site, round=round_, line=self._line, kind="running", weight=share, norm=0.0),
            {"sum": total, "specific": specific},
            dtype="float32",
        )
        del row
        if last is None or last.round in self.policy.anchor_rounds:
            return []
        old = self._directory / last.path
        session.delete(last)
        return [old]

    def _keep_update(
        self, session: Session, site: str, round_: int, share: float, size: float, delta: Vector
    ) -> None:
        row = ContributionRow(
            site=site, round=round_, line=self._line, kind="update", weight=share, norm=size
        )
        if self.policy.history_every and round_ % self.policy.history_every == 0:
            self._save(session, row, {"update": delta}, dtype=self.policy.history_dtype)
        else:
            row.path, row.sha256, row.bytes, row.dtype = "", "", 0, ""
            row.created_at, row.frozen = dt.datetime.now(dt.UTC), False
            session.add(row)

    def _save(
        self, session: Session, row: ContributionRow, vectors: Mapping[str, Vector], *, dtype: str
    ) -> ContributionRow:
        target = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        content = safetensors.torch.save(
            {name: torch.from_numpy(vector).to(target) for name, vector in vectors.items()}
        )
        row.path = f"{row.site}/{row.kind}-{row.round:06d}.safetensors"
        row.sha256, row.bytes, row.dtype = sha256_of(content), len(content), dtype
        row.created_at, row.frozen = dt.datetime.now(dt.UTC), False
        try:
            write_atomically(self._directory / row.path, content)
        except OSError as error:
            raise ContributionError(
                f"The contribution of site '{row.site}' of round {row.round} cannot be written: {error}.",
                "Free space in the state directory; the round can then be repeated.",
            ) from error
        session.add(row)
        return row

    def _load(self, row: ContributionRow) -> dict[str, Vector]:
        path = self._directory / row.path
        what = f"The contribution of site '{row.site}' up to round {row.round} ({path})"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ContributionError(
                f"{what} cannot be read: {error.strerror}.", "Restore it from a backup."
            ) from error
        if sha256_of(content) != row.sha256:
            kind = "truncated" if len(content) < row.bytes else "altered"
            raise ContributionError(
                f"{what} is {kind}: its checksum is not the recorded one.",
                "It is not used. Restore it from a backup, or unlearn by a method that needs no cache.",
            )
        return {
            name: tensor.to(torch.float32).numpy() for name, tensor in safetensors.torch.load(content).items()
        }

    def _rows(self, session: Session, site: str, kind: str | None) -> list[ContributionRow]:
        query = select(ContributionRow).where(
            ContributionRow.line == self._line, ContributionRow.site == site
        )
        if kind is not None:
            query = query.where(ContributionRow.kind == kind)
        return list(session.scalars(query.order_by(ContributionRow.round)))


def specific_contribution(delta: Vector, mean: Vector, share: float) -> Vector:
    """What a site added in a round beyond the others: Δ̄ − Δ̄₍without it₎ = p/(1 − p) (Δ − Δ̄).

    A site that was alone (p = 1) moved the model by Δ; without it the model would have stood still.

    Parameters
    ----------
    delta
        The site's update Δ ``(P,)``.
    mean
        The round's weighted average Δ̄ ``(P,)``.
    share
        The site's weight p in it, 0 < p ≤ 1.
    """
    if share >= 1.0:
        return delta
    contribution: Vector = np.float32(share / (1 - share)) * (delta - mean)
    return contribution


def discard(files: list[Path]) -> None:
    """Unlink ``files``, and directories that are empty then; those already gone do not matter."""
    for file in files:
        file.unlink(missing_ok=True)
    for directory in {file.parent for file in files}:
        with suppress(OSError):
            directory.rmdir()
