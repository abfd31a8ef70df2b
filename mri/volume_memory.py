"""Prepared volumes that a process keeps in memory, all of its datasets together."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from mri.prepared import PreparedVolume

MEMORY_LIMIT_BYTES = 2 * 1024**3


class VolumeMemory:
    """Holds volumes within one budget; those used longest ago go first.

    What is held is read-only, so datasets of the same files under the same sampling share it. A volume larger
    than the whole budget is held alone.

    Parameters
    ----------
    limit_bytes
        Most to hold, by the volumes' size as read.
    """

    def __init__(self, limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._held: OrderedDict[Hashable, tuple[PreparedVolume, int]] = OrderedDict()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Number of volumes held."""
        return len(self._held)

    @property
    def held_bytes(self) -> int:
        """Size of the volumes held, as read."""
        with self._lock:
            return sum(size for _, size in self._held.values())

    def get(self, key: Hashable, size_bytes: int, prepare: Callable[[], PreparedVolume]) -> PreparedVolume:
        """The volume of this key; made by ``prepare``, after room was made for it, if it is not held."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][0]
            while self._held and self.held_bytes + size_bytes > self.limit_bytes:
                self._held.popitem(last=False)
            volume = prepare()
            self._held[key] = volume, size_bytes
            return volume


SHARED = VolumeMemory()
"""Of this process: simulated sites share one, so a budget for each dataset would be many times too much."""
