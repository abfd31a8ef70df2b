"""Checkpoints that the server keeps itself, beside the ledger: what shows that its end was cut off.

One is a file in the state directory, replaced after each transaction that added entries; the others are in a
table of their own, what sites have confirmed to have seen. Whoever truncates the ledger's table changes
neither. They do not protect against whoever can write everywhere here: for that sites keep their own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy.orm import Session

from reconsent.errors import LedgerError, ReconsentError
from reconsent.files import write_atomically
from server.persistence.progress import RunProgress
from server.persistence.state import StateDirectory
from unlearning.ledger.checkpoints import Checkpoint, read_checkpoint
from unlearning.ledger.exports import checkpoint_file, read_checkpoint_file
from unlearning.signing import PublicKey

if TYPE_CHECKING:
    from server.persistence.ledger import Ledger

CHECKPOINT_FILE: Final = "ledger-checkpoint.json"
WITNESSED: Final = "witnessed"
"""Key under which it is kept what the sites have confirmed."""

_log = logging.getLogger(__name__)
_writing = threading.Lock()


def checkpoint_path(state: StateDirectory) -> Path:
    """Where the newest checkpoint is."""
    return state.path / CHECKPOINT_FILE


def kept_checkpoint(state: StateDirectory, trusted: Sequence[PublicKey]) -> Checkpoint | None:
    """The newest checkpoint that was kept here; ``None`` if there is none.

    Parameters
    ----------
    state
        Whose.
    trusted
        The keys that the ledger names. Of an empty one, which names none, what was kept here is believed.

    Raises
    ------
    LedgerError
        If the file cannot be read, or is signed by a key that the ledger does not name.
    SignatureError
        If its signature does not hold.
    """
    path = checkpoint_path(state)
    if not path.exists():
        return None
    kept = read_checkpoint_file(path)
    known = list(trusted) or [kept.key]
    if kept.key not in known:
        raise LedgerError(
            f"The checkpoint {path} was signed by key {kept.key.key_id}, which this ledger does not name: it "
            "is another ledger, or all of it was written anew with another key.",
            "Restore the state from a backup. If a new consortium begins in this directory, remove the file.",
        )
    return read_checkpoint(kept.envelope, known)


def keep_checkpoint(state: StateDirectory, ledger: Ledger) -> None:
    """Replace it by the ledger's newest, unless the ledger does not go on from the one that was kept.

    Then that one stays, for it shows what was done; so it does on a full disk. What the newest is was
    committed before, so nothing is raised.
    """
    path = checkpoint_path(state)
    try:
        with _writing:
            with state.reading() as session:
                newest, key = ledger.checkpoint(session=session), ledger.public_key(session=session)
                if newest is None or key is None:
                    return
                former = kept_checkpoint(state, ledger.named_keys(session=session))
                if former is not None and not _goes_on(ledger, former, newest, session):
                    return
                envelope = ledger.envelope(newest.size, session=session)
            write_atomically(path, checkpoint_file(newest, envelope, key))
    except (OSError, ReconsentError) as error:
        _log.warning("The newest checkpoint of the ledger could not be kept in %s: %s", path, error)


def _goes_on(ledger: Ledger, former: Checkpoint, newest: Checkpoint, session: Session) -> bool:
    if former.ledger != newest.ledger or former.size >= newest.size:
        return False
    return ledger.root(former.size, session=session) == former.root


def witnessed(state: StateDirectory, *, session: Session | None = None) -> dict[str, Checkpoint]:
    """What each site has confirmed last, by its name."""
    found = RunProgress(state).get(WITNESSED, {}, session=session)
    return {site: Checkpoint(**fields) for site, fields in found.items()}


def note_witnessed(state: StateDirectory, seen: Mapping[str, Checkpoint]) -> None:
    """Put on record what sites have confirmed, by their names; of the others what was known stays."""
    with state.session() as session:
        progress = RunProgress(state)
        known = progress.get(WITNESSED, {}, session=session)
        progress.put(WITNESSED, known | {site: asdict(one) for site, one in seen.items()}, session=session)
