"""How many log-ins may fail, by account and by address."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

WINDOW_SECONDS = 15 * 60.0
PER_ACCOUNT = 5
PER_ADDRESS = 20
MOST_KEYS = 10_000
"""Accounts and addresses that are remembered; the one that failed longest ago is forgotten first."""


class LoginLimit:
    """Counts log-ins that failed within the last quarter of an hour, in memory.

    A restart of the console forgets them, which whoever attacks it cannot cause. Each attempt counts when it
    begins, so that many at once cannot slip through; a log-in that succeeds takes its own count back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._unheard = 0

    def begin(self, account: str, address: str) -> float:
        """Seconds until another attempt is heard; 0 if this one is, which counts from now on."""
        now = self._clock()
        keys = (("account", account, PER_ACCOUNT), ("address", address, PER_ADDRESS))
        with self._lock:
            waits = [self._wait((kind, name), most, now) for kind, name, most in keys]
            if any(waits):
                self._unheard += 1
                return max(waits)
            for kind, name, _ in keys:
                self._failed.setdefault((kind, name), deque()).append(now)
                self._failed.move_to_end((kind, name))
            while len(self._failed) > MOST_KEYS:
                self._failed.popitem(last=False)
        return 0.0

    def failures(self, account: str) -> int:
        """How many of an account's attempts failed lately."""
        with self._lock:
            return len(self._failed.get(("account", account), ()))

    def succeeded(self, account: str, address: str) -> int:
        """Forget the account's failures, and this attempt of the address; returns how many had failed."""
        with self._lock:
            failed = len(self._failed.pop(("account", account), ())) - 1
            if times := self._failed.get(("address", address)):
                times.pop()
        return max(failed, 0)

    def take_unheard(self) -> int:
        """How many attempts were turned away unheard since this was asked last."""
        with self._lock:
            count, self._unheard = self._unheard, 0
        return count

    def _wait(self, key: tuple[str, str], most: int, now: float) -> float:
        times = self._failed.get(key)
        while times and times[0] <= now - WINDOW_SECONDS:
            times.popleft()
        return times[-most] + WINDOW_SECONDS - now if times and len(times) >= most else 0.0
