"""Every model version, whose updates are in it, and whether it may still be used."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from reconsent.errors import StateError
from reconsent.files import write_atomically
from server.persistence.ledger import Ledger
from server.persistence.ledger_entries import MODEL_REGISTERED, MODELS_REVOKED, model_body, revocation_body
from server.persistence.state import StateDirectory, explaining_os_errors
from server.persistence.tables import ModelRow
from server.persistence.tensors import Array, content_hash, pack, unpack
from server.persistence.versions import (
    KINDS,
    ModelVersion,
    VersionStatus,
    merge_lineage,
    model_filename,
    version_id,
    version_of,
)


class ModelRegistry:
    """Model versions: rows that are never deleted, and files that may be.

    A file is named after its content and written before its row is committed, so a committed version has
    its file; a crash in between leaves a file without a row, which :meth:`sweep` removes.
    """

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._ledger = Ledger(state)

    def add(
        self,
        arrays: Mapping[str, Array],
        *,
        line: str,
        round: int,
        kind: str,
        parent: str | None,
        sites: Mapping[str, float],
        method: str | None = None,
        forgets: Collection[str] = (),
        session: Session | None = None,
    ) -> ModelVersion:
        """Keep a new version; the line's former one is superseded. Adding it again changes nothing.

        Parameters
        ----------
        arrays
            The model's named arrays, of any shape.
        line, round, kind
            Where it belongs; ``kind`` is one of :data:`server.persistence.versions.KINDS`.
        parent
            Id of the version it was made from; ``None`` for an initial one.
        sites
            Site to its weight in this round.
        method
            The unlearning method, if one made it.
        forgets
            Sites that this version has unlearned; required for kind ``unlearned``. They stay in the
            lineage, but the version and its descendants are not revoked with them.
        session
            Transaction to take part in.

        Returns
        -------
        The version, with the lineage it inherits from its parent.

        Raises
        ------
        StateError
            If the kind is unknown; the parent is unknown or revoked; ``forgets`` is missing or
            contradicts ``sites``; or the file cannot be written.
        """
        _check_kind(kind, sites, forgets)
        digest, content = content_hash(arrays), pack(arrays)
        weights = {site: float(sites[site]) for site in sorted(sites)}
        identity = version_id(line, kind, round, parent, digest, weights, sorted(forgets), method)
        with self._state.session(session) as own:
            row = self._find(own, identity)
            known = row is not None
            if row is None:
                row = self._new_row(own, identity, kind, parent, weights, round, forgets)
                row.line, row.digest, row.bytes, row.method = line, digest, len(content), method
                row.names = list(arrays)
                active = (ModelRow.line == line, ModelRow.status == VersionStatus.ACTIVE.value)
                own.execute(update(ModelRow).where(*active).values(status=VersionStatus.SUPERSEDED.value))
                own.add(row)
            _refuse_revoked(row)
            self._write(digest, content)
            row.pruned = False
            own.flush()
            if not known:
                self._ledger.append(MODEL_REGISTERED, model_body(row), session=own)
            return version_of(row)

    def latest(
        self, line: str, *, kinds: Collection[str] = KINDS, session: Session | None = None
    ) -> ModelVersion | None:
        """The newest version of ``line``, of ``kinds``, that is not revoked; ``None`` if there is none."""
        usable = (
            ModelRow.line == line,
            ModelRow.kind.in_(kinds),
            ModelRow.status != VersionStatus.REVOKED.value,
        )
        with self._state.reading(session) as own:
            row = own.scalar(select(ModelRow).where(*usable).order_by(ModelRow.number.desc()).limit(1))
            return None if row is None else version_of(row)

    def initial(self, line: str, *, session: Session | None = None) -> ModelVersion | None:
        """The version ``line`` began with, revoked or not; ``None`` if it has not begun."""
        first = (ModelRow.line == line, ModelRow.kind == "initial")
        with self._state.reading(session) as own:
            row = own.scalar(select(ModelRow).where(*first).order_by(ModelRow.number).limit(1))
            return None if row is None else version_of(row)

    def get(self, id: str, *, session: Session | None = None) -> ModelVersion:
        """The version called ``id``.

        Raises
        ------
        StateError
            If there is none.
        """
        with self._state.reading(session) as own:
            return version_of(self._row(own, id))

    def all(self, line: str | None = None, *, session: Session | None = None) -> list[ModelVersion]:
        """Every version, of ``line`` or of all lines, oldest first."""
        query = select(ModelRow).order_by(ModelRow.number)
        if line is not None:
            query = query.where(ModelRow.line == line)
        with self._state.reading(session) as own:
            return [version_of(row) for row in own.scalars(query)]

    def load(self, id: str, *, force: bool = False, session: Session | None = None) -> dict[str, Array]:
        """The arrays of a version, by name, checked against its hash.

        Parameters
        ----------
        id
            Which version.
        force
            Load it even if it is revoked (to verify an unlearning against it).
        session
            Transaction to take part in.

        Raises
        ------
        StateError
            If it is unknown, revoked or pruned, or its file is missing, truncated or altered.
        """
        with self._state.reading(session) as own:
            row = self._row(own, id)
        if not force:
            _refuse_revoked(row)
        version = version_of(row)
        return read_version(self.path(version), version)

    def path(self, version: ModelVersion) -> Path:
        """The file of ``version``."""
        return self._state.models_dir / version.filename

    def revoke_descendants_of_site(
        self, site: str, reason: str, *, but: Collection[str] = (), session: Session | None = None
    ) -> list[ModelVersion]:
        """Revoke every version that has an update of ``site`` which was not unlearned since.

        Parameters
        ----------
        site, reason
            Whose descendants, and why.
        but
            Except versions that have forgotten all of these: of a site that stays, what some patients left in
            it; see :attr:`server.persistence.WithdrawalRecord.marks`.
        session
            Transaction to take part in.

        Returns
        -------
        The versions that were revoked by this call, oldest first.
        """
        with self._state.session(session) as own:
            revoked = []
            for row in own.scalars(select(ModelRow).order_by(ModelRow.number)):
                spared = bool(but) and set(but) <= set(row.forgotten)
                if row.status != VersionStatus.REVOKED and version_of(row).depends_on(site) and not spared:
                    row.status, row.reason = VersionStatus.REVOKED.value, reason
                    revoked.append(version_of(row))
            if revoked:
                body = revocation_body(site, [version.id for version in revoked])
                self._ledger.append(MODELS_REVOKED, body, session=own)
            return revoked

    def prune(
        self, line: str, keep: int, *, protect: Collection[str] = (), session: Session | None = None
    ) -> list[ModelVersion]:
        """Remove the files of old versions of ``line``; their rows stay.

        The newest ``keep`` versions that are not revoked keep their files, and so do the line's current
        version, its initial one (exact retraining begins there), and those whose ids are in ``protect``.

        Returns
        -------
        The versions that were pruned.
        """
        with self._state.session(session) as own:
            # A line may have thousands of versions, and this is asked after each round: only what is needed.
            columns = select(ModelRow.id, ModelRow.status, ModelRow.kind, ModelRow.pruned)
            rows = own.execute(columns.where(ModelRow.line == line).order_by(ModelRow.number.desc())).all()
            usable = [row.id for row in rows if row.status != VersionStatus.REVOKED]
            kept = {*usable[: max(keep, 1)], *protect}
            unneeded = [r.id for r in rows if r.id not in kept and r.kind != "initial" and not r.pruned]
            return self._drop(own, [self._row(own, id_) for id_ in unneeded])

    def sweep(self) -> list[Path]:
        """Remove files that no version needs: left by a crash between writing and committing.

        Call it when no round is being committed.

        Returns
        -------
        The files that were removed.

        Raises
        ------
        StateError
            If no version at all is registered though there are files: more likely the wrong database.
        """
        with self._state.reading() as own:
            known = list(own.scalars(select(ModelRow.digest).where(~ModelRow.pruned)))
            empty = own.scalar(select(ModelRow.number).limit(1)) is None
        directory = self._state.models_dir
        named = {model_filename(digest) for digest in known}
        files = [*directory.glob("*.safetensors"), *directory.glob(".*.part")]
        orphans = sorted(file for file in files if file.name not in named)
        if len(orphans) > 1 and empty:
            raise StateError(
                f"There are {len(orphans)} files in {directory}, but the database knows no model version.",
                "Check RECONSENT_DATABASE_URL. If they are really not needed, remove them by hand.",
            )
        for file in orphans:
            file.unlink(missing_ok=True)
        return orphans

    def verify(self) -> list[str]:
        """Read every file that should be there; the problems found, each naming its file."""
        problems = []
        for version in self.all():
            if not version.pruned:
                try:
                    read_version(self.path(version), version)
                except StateError as error:
                    problems.append(error.problem)
        return problems

    def _new_row(
        self,
        session: Session,
        identity: str,
        kind: str,
        parent: str | None,
        weights: dict[str, float],
        round_: int,
        forgets: Collection[str],
    ) -> ModelRow:
        lineage, forgotten = merge_lineage({}, weights, round_), set(forgets)
        if parent is not None:
            ancestor = self._row(session, parent)
            _refuse_revoked(ancestor)
            version = version_of(ancestor)
            lineage = merge_lineage(version.lineage, weights, round_)
            forgotten |= set(version.forgotten)
        return ModelRow(
            id=identity,
            round=round_,
            kind=kind,
            parent=parent,
            sites=weights,
            lineage={site: asdict(span) for site, span in lineage.items()},
            forgotten=sorted(forgotten - weights.keys()),
            status=VersionStatus.ACTIVE.value,
            created_at=dt.datetime.now(dt.UTC),
        )

    def _write(self, digest: str, content: bytes) -> None:
        path = self._state.models_dir / model_filename(digest)
        with explaining_os_errors(f"The model file {path}"):
            write_atomically(path, content)

    def _drop(self, session: Session, rows: Iterable[ModelRow]) -> list[ModelVersion]:
        dropped = list(rows)
        for row in dropped:
            row.pruned = True
        digests = {row.digest for row in dropped}
        # Only after the commit, and only then looked up: a rolled-back savepoint still needs its files.
        self._state.after_commit(session, lambda: self._unlink_unused(digests))
        return [version_of(row) for row in dropped]

    def _unlink_unused(self, digests: set[str]) -> None:
        with self._state.reading() as session:
            used = set(session.scalars(select(ModelRow.digest).where(~ModelRow.pruned)))
        for digest in digests - used:
            path = self._state.models_dir / model_filename(digest)
            with explaining_os_errors(f"The model file {path}"):
                path.unlink(missing_ok=True)

    @staticmethod
    def _find(session: Session, id_: str) -> ModelRow | None:
        return session.scalar(select(ModelRow).where(ModelRow.id == id_))

    def _row(self, session: Session, id_: str) -> ModelRow:
        row = self._find(session, id_)
        if row is None:
            raise StateError(
                f"There is no model version '{id_}' in {self._state.path}.",
                "The registry's `all` lists them.",
            )
        return row


def _check_kind(kind: str, sites: Mapping[str, float], forgets: Collection[str]) -> None:
    if kind not in KINDS:
        raise StateError(f"A model version cannot be of kind '{kind}'.", f"Kinds are: {', '.join(KINDS)}.")
    if kind == "unlearned" and not forgets:
        raise StateError(
            "An unlearned model version does not say whom it forgets.", "Pass forgets={site, …}."
        )
    both = sorted(set(forgets) & set(sites))
    if both:
        raise StateError(
            f"A model version cannot forget {', '.join(both)} and have their updates in the same round.",
            "Average the round without them.",
        )


def _refuse_revoked(row: ModelRow) -> None:
    if row.status == VersionStatus.REVOKED:
        raise StateError(
            f"Model version {row.id} (line '{row.line}', round {row.round}) is revoked: {row.reason}.",
            "Use one that is not: `reconsent model list` shows which.",
        )


def read_version(path: Path, version: ModelVersion) -> dict[str, Array]:
    """The arrays of a version from its file, by name, checked against its hash.

    Raises
    ------
    StateError
        If it is pruned, or its file is missing, truncated or altered.
    """
    what = f"The file {path} of model version {version.id} (line '{version.line}', round {version.round})"
    remedy = "It is not used. Restore it from a backup, or go on from another version."
    if version.pruned:
        raise StateError(
            f"{what} was removed to save space or after a withdrawal.", "Choose a newer version."
        )
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise StateError(f"{what} is missing.", remedy) from None
    except OSError as error:
        raise StateError(f"{what} cannot be read: {error.strerror}.", remedy) from error
    state = "altered" if len(content) == version.bytes else "truncated or altered"
    size = f"{len(content)} bytes instead of {version.bytes}"
    try:
        arrays = unpack(content)
    except ValueError:
        raise StateError(f"{what} is {state} ({size}).", remedy) from None
    if content_hash(arrays) != version.digest:
        raise StateError(f"{what} is {state}: its content does not have the hash it had.", remedy)
    # The model's own order: vectors of its parameters are laid out in it.
    return {name: arrays[name] for name in version.names}
