"""Verifies the ledger as a whole: its entries, its end, and the register that it speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy.orm import Session

from reconsent.errors import LedgerError, SignatureError
from server.persistence.ledger import Ledger
from server.persistence.own_checkpoints import kept_checkpoint, witnessed
from server.persistence.register_check import RegisterCheck, check_register
from server.persistence.state import StateDirectory
from unlearning.ledger.audit import Audit, compare
from unlearning.ledger.checkpoints import Checkpoint
from unlearning.signing import PublicKey


@dataclass(frozen=True, slots=True)
class OwnCheckpoints:
    """What the server keeps itself to compare the ledger with.

    Attributes
    ----------
    newest
        Of the file in the state directory; ``None`` if there is none.
    witnessed
        What sites have confirmed, by their names.
    problem
        Why what is kept is no checkpoint of this ledger, and what to do; else empty.
    """

    newest: Checkpoint | None = None
    witnessed: Mapping[str, Checkpoint] = field(default_factory=dict)
    problem: str = ""

    @classmethod
    def in_file(cls, state: StateDirectory, trusted: Sequence[PublicKey]) -> OwnCheckpoints:
        """What is in the state directory, to be read before the view of the database is taken.

        Thus what is added meanwhile is no cut-off end.
        """
        try:
            return cls(kept_checkpoint(state, trusted))
        except (LedgerError, SignatureError) as error:
            return cls(problem=str(error))

    def with_witnessed(self, state: StateDirectory, session: Session) -> OwnCheckpoints:
        """The same, and what is in the database."""
        try:
            return replace(self, witnessed=witnessed(state, session=session))
        except (TypeError, ValueError, AttributeError) as error:
            problem = f"What sites have confirmed cannot be read, so it was altered ({error})."
            return replace(self, problem=self.problem or problem)

    @property
    def all(self) -> list[Checkpoint]:
        """Every one of them."""
        return [*([self.newest] if self.newest is not None else []), *self.witnessed.values()]


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification came to.

    Attributes
    ----------
    audit
        Of the entries, compared with all checkpoints.
    own
        Those of them that the server keeps itself.
    elsewhere
        How many were kept elsewhere.
    register
        Of the rows that entries speak of; empty if the entries themselves are not sound.
    """

    audit: Audit
    own: OwnCheckpoints
    elsewhere: int
    register: RegisterCheck

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.audit.sound and not self.own.problem and self.register.sound

    @property
    def problem(self) -> str:
        """What is wrong first, in words; empty if nothing is."""
        if self.audit.fault is not None:
            return f"Entry {self.audit.fault.number}: {self.audit.fault.problem}."
        if self.own.problem or self.register.sound:
            return self.own.problem
        entry = self.register.entry
        problem = self.register.problem
        return f"{problem[0].upper()}{problem[1:]}." if entry is None else f"Entry {entry}: {problem}."


def verify_ledger(
    state: StateDirectory, trusted: Sequence[PublicKey] = (), kept: Sequence[Checkpoint] = ()
) -> Verification:
    """Check every entry and every row that they speak of, as of one moment.

    Parameters
    ----------
    state
        Whose ledger.
    trusted
        Keys that may have signed; none for those the ledger names itself.
    kept
        Checkpoints kept elsewhere, known to be genuine.
    """
    ledger = Ledger(state)
    in_file = OwnCheckpoints.in_file(state, trusted or ledger.named_keys())
    with state.reading() as session:
        keys = trusted or ledger.named_keys(session=session)
        entries = ledger.audit(keys, session=session)
        return verify_beside(state, entries, in_file, kept, session=session)


def verify_beside(
    state: StateDirectory,
    entries: Audit,
    in_file: OwnCheckpoints,
    kept: Sequence[Checkpoint] = (),
    *,
    session: Session,
) -> Verification:
    """Compare entries that were checked with all checkpoints and with the register.

    Parameters
    ----------
    state
        Whose ledger.
    entries
        What the check of the entries came to.
    in_file
        The server's own checkpoint, as it was before ``session`` took its view.
    kept
        Checkpoints kept elsewhere, known to be genuine.
    session
        The view in which the entries were checked.
    """
    own = in_file.with_witnessed(state, session)
    root_of = partial(Ledger(state).root, session=session)
    compared, fault = compare(entries, [*own.all, *kept], root_of)
    found = replace(entries, compared=compared, fault=fault or entries.fault)
    register = check_register(session) if found.sound else RegisterCheck()
    return Verification(found, own, len(kept), register)
