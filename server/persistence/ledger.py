"""The ledger in the state database: entries are written in the transaction of what they record."""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from reconsent.errors import LedgerError, SignatureError
from reconsent.files import sync_directory
from server.persistence.own_checkpoints import keep_checkpoint, note_witnessed
from server.persistence.state import StateDirectory
from server.persistence.tables import LedgerRow
from unlearning.ledger.audit import Audit, Auditor, audit
from unlearning.ledger.checkpoints import Checkpoint
from unlearning.ledger.entries import KEY_REPLACED, LEDGER_BEGUN, Entry, Row, now
from unlearning.ledger.exports import ledger_lines
from unlearning.ledger.merkle import MerkleTree
from unlearning.signing import PublicKey, SigningKey, load_key, load_or_create_key

KEY_FILE = "signing-key.pem"
_REMEDY = "Run `reconsent ledger verify`: it names the entry. Then restore the state from a backup."


class Ledger:
    """What happened, in entries that can only be added, each signed with everything before it.

    An entry is there if and only if what it records is: both are one transaction. Several processes may add
    entries; the database lets one write at a time. It does not protect against whoever has the signing key
    and the database: that is what the checkpoints are for that others keep.

    Parameters
    ----------
    state
        Where it is kept. The key is made there with the first entry (mode 600).
    """

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._book = _books.setdefault(state, _Book())

    @property
    def key_path(self) -> Path:
        """Where the key is that signs."""
        return self._state.path / KEY_FILE

    def append(self, kind: str, body: Mapping[str, Any], *, session: Session | None = None) -> Entry:
        """Add an entry.

        Parameters
        ----------
        kind, body
            As of :class:`~unlearning.ledger.entries.Entry`.
        session
            The transaction of what is recorded. Call this last in it: on PostgreSQL the other writers wait
            from here on until it ends.

        Raises
        ------
        LedgerError
            If the body is no JSON, the key is missing or another one, or the ledger was altered.
        SignatureError
            If the key cannot be used.
        """
        with self._state.session(session) as own:
            _one_writer(own)
            with self._book.lock:
                self._book.catch_up(own)
                if self._book.tree.size == 0:
                    self._begin(own)
                return self._write(own, kind, body, self._signing_key(own))

    def signing_key(self, *, session: Session | None = None) -> SigningKey:
        """The key that signs, for certificates too; begins the ledger if there is none.

        Raises
        ------
        LedgerError
            If the ledger is signed by another key than the one that is there.
        SignatureError
            If the key is missing or cannot be used.
        """
        with self._state.session(session) as own:
            _one_writer(own)
            with self._book.lock:
                self._book.catch_up(own)
                if self._book.tree.size == 0:
                    self._begin(own)
                return self._signing_key(own)

    def replace_key(self, *, session: Session | None = None) -> PublicKey:
        """Go on with a new key, the old one being lost or in wrong hands; the ledger says so for ever.

        Sites refuse checkpoints of the new key until they are told of it.

        Raises
        ------
        LedgerError
            If there is no ledger yet, or it was altered.
        """
        with self._state.session(session) as own:
            _one_writer(own)
            with self._book.lock:
                self._book.catch_up(own)
                former = self._public_key(own)
                self._next_key_path.unlink(missing_ok=True)
                key = load_or_create_key(self._next_key_path)
                body = {"former": former.key_id, "key": key.public.raw.hex()}
                self._write(own, KEY_REPLACED, body, key)
                # If the transaction fails, the old key still signs.
                self._state.after_commit(own, self._take_next_key)
        return key.public

    def public_key(self, *, session: Session | None = None) -> PublicKey | None:
        """The key the ledger names as the one that signs; ``None`` if it has no entry."""
        with self._state.reading(session) as own:
            return self._public_key(own) if self._last(own) else None

    def size(self, *, session: Session | None = None) -> int:
        """Number of entries."""
        with self._state.reading(session) as own:
            return self._last(own)

    def root(self, size: int, *, session: Session | None = None) -> str | None:
        """The root (hexadecimal) written with entry ``size``; ``None`` if there is no such entry."""
        with self._state.reading(session) as own:
            return _root_of(own, size)

    def entries(
        self, kinds: Collection[str] | None = None, *, after: int = 0, session: Session | None = None
    ) -> list[Entry]:
        """Entries with larger numbers than ``after``, of ``kinds`` or of all; unchecked."""
        query = select(LedgerRow.content).where(LedgerRow.number > after).order_by(LedgerRow.number)
        if kinds is not None:
            query = query.where(LedgerRow.kind.in_(kinds))
        with self._state.reading(session) as own:
            return [Entry.of(content) for content in own.scalars(query)]

    def checkpoint(self, size: int | None = None, *, session: Session | None = None) -> Checkpoint | None:
        """What the ledger was with ``size`` entries (now, if ``None``); ``None`` if there are none."""
        with self._state.reading(session) as own:
            wanted = self._last(own) if size is None else size
            return self._checkpoint(own, self._row(own, wanted)) if wanted else None

    def envelope(self, size: int | None = None, *, session: Session | None = None) -> dict[str, Any]:
        """The signed checkpoint; see :meth:`checkpoint`.

        Raises
        ------
        LedgerError
            If there is no such entry.
        """
        with self._state.reading(session) as own:
            row = self._row(own, self._last(own) if size is None else size)
            key = self._public_key(own, up_to=row.number)
            return self._checkpoint(own, row).envelope(key, row.signature)

    def consistency(self, old: int, *, new: int | None = None, session: Session | None = None) -> list[str]:
        """Hexadecimal hashes that prove that the ledger goes on from what it was with ``old`` entries.

        Raises
        ------
        LedgerError
            If it never had so many, or was altered.
        """
        with self._state.reading(session) as own, self._book.lock:
            self._book.catch_up(own)
            return [step.hex() for step in self._book.tree.consistency_proof(old, new)]

    def inclusion(self, number: int, *, size: int | None = None, session: Session | None = None) -> list[str]:
        """Hexadecimal hashes that prove that entry ``number`` is in the ledger of ``size`` entries.

        Raises
        ------
        LedgerError
            If there is no such entry, or the ledger was altered.
        """
        with self._state.reading(session) as own, self._book.lock:
            self._book.catch_up(own)
            return [step.hex() for step in self._book.tree.inclusion_proof(number - 1, size)]

    def audit(
        self, trusted: Sequence[PublicKey], kept: Sequence[Checkpoint] = (), *, session: Session | None = None
    ) -> Audit:
        """Check every entry; see :func:`unlearning.ledger.audit.audit`."""
        with self._state.reading(session) as own:
            return audit(_rows(own), trusted, kept)

    def audit_added(
        self, auditor: Auditor, trusted: Sequence[PublicKey], *, session: Session | None = None
    ) -> bool:
        """Check the entries that were added since ``auditor`` was here last.

        Returns
        -------
        Whether the ledger still goes on from where it was then; if not, nothing was checked.
        """
        with self._state.reading(session) as own:
            done = auditor.result
            if done.size and _root_of(own, done.size) != done.root:
                return False
            for row in _rows(own, after=done.size):
                if not auditor.take(row, trusted):
                    break
            return True

    def key_contents(self, *, session: Session | None = None) -> list[str]:
        """Contents of the entries that name a key, unchecked: they may have been altered."""
        query = select(LedgerRow.content).where(LedgerRow.kind.in_((LEDGER_BEGUN, KEY_REPLACED)))
        with self._state.reading(session) as own:
            return list(own.scalars(query.order_by(LedgerRow.number)))

    def named_keys(self, *, session: Session | None = None) -> list[PublicKey]:
        """Every key the ledger names, in order; an entry that cannot be read is left to the audit."""
        found = []
        for content in self.key_contents(session=session):
            try:
                found.append(PublicKey.from_hex(str(Entry.of(content).body.get("key"))))
            except (LedgerError, SignatureError):
                continue
        return found

    def export(self, *, size: int | None = None, session: Session | None = None) -> Iterator[bytes]:
        """The lines of a file that can be checked without this server; of the first ``size`` entries.

        Raises
        ------
        LedgerError
            If there is no entry.
        """
        with self._state.reading(session) as own:
            wanted = self._row(own, self._last(own) if size is None else size).number
            yield from ledger_lines(_rows(own, wanted), self._public_key(own, up_to=wanted))

    def note_witnessed(self, sizes: Mapping[str, int]) -> None:
        """Keep what the ledger was with as many entries as sites, by name, have confirmed to have seen."""
        with self._state.reading() as session:
            last = self._last(session)
            known = {site: size for site, size in sizes.items() if 0 < size <= last}
            seen = {site: self.checkpoint(size, session=session) for site, size in known.items()}
        if found := {site: one for site, one in seen.items() if one is not None}:
            note_witnessed(self._state, found)

    # ---- inside -----------------------------------------------------------------------------------------

    def _begin(self, session: Session) -> None:
        key = load_or_create_key(self.key_path)
        self._book.key = key
        self._write(session, LEDGER_BEGUN, {"key": key.public.raw.hex(), "ledger": uuid.uuid4().hex}, key)

    def _write(self, session: Session, kind: str, body: Mapping[str, Any], key: SigningKey) -> Entry:
        tree = self._book.tree
        entry = Entry(tree.size + 1, now(), kind, body)
        row = Row(entry.number, entry.content().decode(), "", "")
        leaf = row.leaf_hash
        tree.append(leaf)
        root = tree.root().hex()
        ledger = str(body["ledger"]) if kind == LEDGER_BEGUN else self._id(session)
        session.add(
            LedgerRow(
                number=entry.number,
                at=entry.at,
                kind=kind,
                content=row.content,
                leaf=leaf.hex(),
                root=root,
                signature=Checkpoint(ledger, entry.number, root, entry.at).signature(key),
            )
        )
        session.flush()
        if "checkpoint" not in session.info:
            session.info["checkpoint"] = True
            self._state.after_commit(session, partial(keep_checkpoint, self._state, self))
        return entry

    def _signing_key(self, session: Session) -> SigningKey:
        named = self._public_key(session)
        if self._book.key is None or self._book.key.public != named:
            if self._next_key_path.exists() and load_key(self._next_key_path).public == named:
                self._take_next_key()  # which a crash had kept from being done
            # Never made anew here: a ledger that began with a key goes on with it.
            key = load_key(self.key_path)
            if key.public != named:
                raise LedgerError(
                    f"The ledger is signed with key {named.key_id[:16]}…, but {self.key_path} is another "
                    f"one, {key.key_id[:16]}….",
                    "Restore the key from its backup; if it is lost: `reconsent ledger key --replace`.",
                )
            self._book.key = key
        return self._book.key

    @property
    def _next_key_path(self) -> Path:
        return self.key_path.with_name(f".{KEY_FILE}.next")

    def _take_next_key(self) -> None:
        self._next_key_path.replace(self.key_path)
        sync_directory(self.key_path.parent)

    def _public_key(self, session: Session, up_to: int | None = None) -> PublicKey:
        query = select(LedgerRow.content).where(LedgerRow.kind.in_((LEDGER_BEGUN, KEY_REPLACED)))
        if up_to is not None:
            query = query.where(LedgerRow.number <= up_to)
        content = session.scalar(query.order_by(LedgerRow.number.desc()).limit(1))
        if content is None:
            raise LedgerError("The ledger names no key.", _REMEDY if self._last(session) else "It is empty.")
        return PublicKey.from_hex(str(Entry.of(content).body.get("key")))

    def _id(self, session: Session) -> str:
        return str(Entry.of(self._row(session, 1).content).body.get("ledger", ""))

    def _checkpoint(self, session: Session, row: LedgerRow) -> Checkpoint:
        return Checkpoint(self._id(session), row.number, row.root, row.at)

    @staticmethod
    def _last(session: Session) -> int:
        return session.scalar(select(func.max(LedgerRow.number))) or 0

    def _row(self, session: Session, number: int) -> LedgerRow:
        row = session.get(LedgerRow, number)
        if row is None:
            raise LedgerError(
                f"The ledger in {self._state.path} has no entry {number}; it has {self._last(session)}.",
                "`reconsent ledger show` lists them.",
            )
        return row


class _Book:
    """The tree over what the database holds, kept between transactions."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tree = MerkleTree()
        self.key: SigningKey | None = None

    def catch_up(self, session: Session) -> None:
        """Make the tree that of the entries ``session`` sees: others added some, or a transaction failed."""
        last = session.scalar(select(func.max(LedgerRow.number))) or 0
        self.tree.truncate(last)
        known = self.tree.size
        if known and _root_of(session, known) != self.tree.root().hex():
            # What is in the tree was rolled back, and others wrote in its place.
            self.tree, known = MerkleTree(), 0
        query = select(LedgerRow.number, LedgerRow.leaf).where(LedgerRow.number > known)
        for number, leaf in session.execute(query.order_by(LedgerRow.number)):
            if number != self.tree.size + 1:
                raise LedgerError(f"Entry {self.tree.size + 1} of the ledger is missing.", _REMEDY)
            self.tree.append(bytes.fromhex(leaf))
        if self.tree.size > known and _root_of(session, last) != self.tree.root().hex():
            self.tree = MerkleTree()
            raise LedgerError("The ledger was altered: its hashes do not add up.", _REMEDY)


_books: weakref.WeakKeyDictionary[StateDirectory, _Book] = weakref.WeakKeyDictionary()


def _root_of(session: Session, number: int) -> str | None:
    return session.scalar(select(LedgerRow.root).where(LedgerRow.number == number))


def _rows(session: Session, up_to: int | None = None, *, after: int = 0) -> Iterator[Row]:
    query = select(LedgerRow).where(LedgerRow.number > after).order_by(LedgerRow.number)
    query = query.execution_options(yield_per=1000)
    if up_to is not None:
        query = query.where(LedgerRow.number <= up_to)
    for row in session.scalars(query):
        yield Row(row.number, row.content, row.root, row.signature, row.leaf, row.kind, row.at)


def _one_writer(session: Session) -> None:
    """Let no other transaction add entries until this one ends; SQLite does so by itself."""
    if session.get_bind().dialect.name == "postgresql":
        # Before the lock of the book: a thread that waits here must not hold what the other one needs.
        session.execute(text("LOCK TABLE ledger IN EXCLUSIVE MODE"))
