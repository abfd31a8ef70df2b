"""Files to which lines are only ever added, by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconsent.files import sync_directory


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Open ``path`` for appending, alone; a new file is the owner's only (mode 600). Yields its descriptor.

    Raises
    ------
    OSError
        If it cannot be opened; a symbolic link is refused.
    """
    fresh = not path.exists()
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        if fresh:
            sync_directory(path.parent)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def append_line(descriptor: int, line: bytes) -> None:
    """Write one line, which ends with a newline, all of it or nothing, and flush it to the disk.

    Raises
    ------
    OSError
        If it cannot be written, as on a full disk; the file is as it was then.
    """
    size = os.fstat(descriptor).st_size
    # After a power cut the last line may be torn; the next one must not continue it.
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    line = b"\n" + line if torn else line
    try:
        written = os.write(descriptor, line)
        if written < len(line):
            raise OSError(errno.ENOSPC, "No space left on device")
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
