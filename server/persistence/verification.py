"""Verifies the ledger as a whole: its entries, its end, and the register that it speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.persistence.ledger import Ledger
from server.persistence.own_checkpoints import kept_checkpoint, witnessed
from server.persistence.register_check import RegisterCheck, check_register
from server.persistence.state import StateDirectory
from unlearning.ledger.audit import Audit
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
    """

    newest: Checkpoint | None = None
    witnessed: Mapping[str, Checkpoint] = field(default_factory=dict)

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
        return self.audit.sound and self.register.sound

    @property
    def problem(self) -> str:
        """What is wrong first, in words; empty if nothing is."""
        if self.audit.fault is not None:
            return f"Entry {self.audit.fault.number}: {self.audit.fault.problem}."
        if self.register.sound:
            return ""
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

    Raises
    ------
    LedgerError, SignatureError
        If the server's own checkpoint cannot be read or is not signed by one of the keys.
    """
    ledger = Ledger(state)
    # Before the view of the database is taken: what is added meanwhile is no cut-off end.
    newest = kept_checkpoint(state, trusted or ledger.named_keys())
    with state.reading() as session:
        keys = trusted or ledger.named_keys(session=session)
        own = OwnCheckpoints(newest, witnessed(state, session=session))
        found = ledger.audit(keys, [*own.all, *kept], session=session)
        register = check_register(session) if found.sound else RegisterCheck()
    return Verification(found, own, len(kept), register)
