"""Checkpoints that the server keeps itself, beside the ledger: what shows that its end was cut off.

One is a file in the state directory, replaced after each transaction that added entries; the others are in a
table of their own, what sites have confirmed to have seen. Whoever truncates the ledger's table changes
neither. They do not protect against whoever can write everywhere here: for that sites keep their own.
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy.orm import Session

from reconsent.errors import LedgerError, ReconsentError
from reconsent.files import unlink_all, write_atomically
from server.persistence.progress import RunProgress
from server.persistence.state import StateDirectory
from unlearning.ledger.checkpoints import Checkpoint, read_checkpoint
from unlearning.ledger.exports import checkpoint_file, read_checkpoint_file
from unlearning.signing import PublicKey

if TYPE_CHECKING:
    from server.persistence.ledger import Ledger

CHECKPOINT_FILE: Final = "ledger-checkpoint.json"
LOCK_FILE: Final = "ledger-checkpoint.lock"
"""Held by whoever compares the file with the ledger and replaces it."""
PATIENCE: Final = 20.0
"""Seconds to wait for it; the next entry makes up for a checkpoint that was not kept."""
WITNESSED: Final = "witnessed"
"""Key under which it is kept what the sites have confirmed."""

_log = logging.getLogger(__name__)


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

    Then that one stays, for it shows what was done; so it does on a full disk. A file that holds none shows
    nothing, and is replaced if the ledger is sound. What the newest is was committed before, so nothing is
    raised.
    """
    path = checkpoint_path(state)
    try:
        with _writing(state):
            with state.reading() as session:
                newest, key = ledger.checkpoint(session=session), ledger.public_key(session=session)
                if newest is None or key is None or not _may_replace(state, ledger, newest, session):
                    return
                envelope = ledger.envelope(newest.size, session=session)
            # Left by processes that were killed.
            unlink_all(path.parent.glob(f".{path.name}.*.part"))
            write_atomically(path, checkpoint_file(newest, envelope, key))
    except (OSError, ReconsentError) as error:
        _log.warning("The newest checkpoint of the ledger could not be kept in %s: %s", path, error)


def _may_replace(state: StateDirectory, ledger: Ledger, newest: Checkpoint, session: Session) -> bool:
    path = checkpoint_path(state)
    trusted = ledger.named_keys(session=session)
    try:
        if path.exists():
            read_checkpoint_file(path)
    except ReconsentError as error:
        sites = witnessed(state, session=session).values()
        if (found := ledger.audit(trusted, list(sites), session=session)).fault is not None:
            raise LedgerError(
                f"{error.problem} Nor is the ledger sound: entry {found.fault.number}: "
                f"{found.fault.problem}.",
                "Restore the state from a backup.",
            ) from error
        _log.warning("%s The ledger is sound, so its newest takes that place.", error.problem)
        return True
    former = kept_checkpoint(state, trusted)
    if former is None:
        return True
    if former.ledger == newest.ledger and ledger.root(former.size, session=session) == former.root:
        return former.size < newest.size
    _log.warning(
        "The ledger, of %d entries, does not go on from the checkpoint of %d entries in %s, which stays. Run "
        "`reconsent ledger verify`. If a new consortium begins in this directory, remove the file.",
        newest.size,
        former.size,
        path,
    )
    return False


@contextmanager
def _writing(state: StateDirectory) -> Iterator[None]:
    """Let no other thread or process look at the file and replace it meanwhile."""
    with (state.path / LOCK_FILE).open("ab") as file:
        patient_until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > patient_until:
                    raise
            time.sleep(0.01)
        try:
            yield
        finally:
            # Closing does not do while a process that was forked off meanwhile has the file open too.
            fcntl.flock(file, fcntl.LOCK_UN)


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
