"""One server on a state directory at a time."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import socket
import time
import weakref
from pathlib import Path
from typing import IO

from reconsent.errors import StateError

PATIENCE = 2.0
"""Seconds to wait for a lock: whoever asks whether it is held has it for a moment."""

PATIENCE_WITH_CLEARING = 120.0
"""Seconds to wait for one who clears up, which takes as long as there are files to remove."""

_CLEARING = "clears up"


class StateInUseError(StateError):
    """Somebody else holds the state directory."""


class DirectoryLock:
    """An exclusive lock on a directory, held by the process and gone with it, however it ends.

    It is a lock of the kernel on the file, not the file's existence: a killed server leaves the file but no
    lock. The file says who holds it. A process forked off by the holder does not inherit the lock.

    Parameters
    ----------
    path
        The lock file; created if missing.
    clearing
        It is held only to clear up, so others wait for it: :data:`PATIENCE_WITH_CLEARING`.

    Raises
    ------
    StateInUseError
        If another process, or this one, holds the lock and keeps it for :data:`PATIENCE`.
    """

    def __init__(self, path: Path, *, clearing: bool = False) -> None:
        self.path = path
        self._file: IO[str] | None = path.open("a+", encoding="utf-8")
        try:
            _lock_soon(self._file)
        except BlockingIOError:
            holder = _holder(self._file) or "another process"
            self._file.close()
            raise StateInUseError(
                f"The state directory {path.parent} is in use by {holder}.",
                "Stop that server first, or choose another state directory.",
            ) from None
        except OSError:
            self._file.close()
            raise
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        why = f", {_CLEARING}" if clearing else ""
        note = f"process {os.getpid()} on {socket.gethostname()} since {now}{why}\n"
        try:
            self._file.truncate(0)
            # Past the file's own buffer, which on a full disk would be tried again when it is closed.
            os.write(self._file.fileno(), note.encode())
        except OSError:
            # Or it would be held for as long as somebody looks at the error.
            self._file.close()
            raise
        _held.add(self)

    def survive_exec(self) -> None:
        """Keep the lock for whatever program this process becomes; it ends with that."""
        if self._file is not None:
            os.set_inheritable(self._file.fileno(), True)
            _kept.append(self)

    def release(self) -> None:
        """Let another server in. A second call does nothing."""
        if self._file is not None:
            self._file.truncate(0)
            self._forget()

    def _forget(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _lock_soon(file: IO[str]) -> None:
    began = time.monotonic()
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            patience = PATIENCE_WITH_CLEARING if _CLEARING in _holder(file) else PATIENCE
            if time.monotonic() - began > patience:
                raise
        time.sleep(0.02)


def _holder(file: IO[str]) -> str:
    """Who holds the lock, as it says; empty while it has just taken or left it."""
    file.seek(0)
    return file.read().strip()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock of this file; asked by a shared one, for a moment.

    Raises
    ------
    StateError
        If the file may not be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    except PermissionError:
        raise StateError(
            f"The lock {path} may not be read, so whether a server runs is not known.",
            "Ask as the user whose server it is.",
        ) from None
    return False


_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()
_kept: list[DirectoryLock] = []
"""Locks that nobody else may hold on to: a file that is forgotten is closed."""


def _drop_after_fork() -> None:
    # A forked child shares the open file, and the lock lives until the last copy is closed: without this a
    # data loader's worker would keep the directory locked after its server was killed.
    for lock in list(_held):
        lock._forget()


os.register_at_fork(after_in_child=_drop_after_fork)
