"""How many log-ins may fail, by account and by address."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from itertools import islice

WINDOW_SECONDS = 15 * 60.0
PER_ACCOUNT = 5
PER_ADDRESS = 20
MOST_KEYS = 10_000
"""Accounts and addresses that are remembered; the one that failed longest ago is forgotten first, but none
that is at its limit: whoever floods the console with names must not open an account again."""

_MOST = {"account": PER_ACCOUNT, "address": PER_ADDRESS}


class LoginLimit:
    """Counts log-ins that failed within the last quarter of an hour, in memory.

    A restart of the console forgets them, which whoever attacks it cannot cause. Each attempt counts when it
    begins, so that many at once cannot slip through; a log-in that succeeds takes its own count back.
    Addresses of IPv6 count by their first 64 bits: one machine has all that begin so.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._unheard = 0

    def begin(self, account: str, address: str) -> float:
        """Seconds until another attempt is heard; 0 if this one is, which counts from now on."""
        now = self._clock()
        keys = (("account", account), ("address", network_of(address)))
        with self._lock:
            waits = [self._wait(key, now) for key in keys]
            if any(waits):
                self._unheard += 1
                return max(waits)
            for key in keys:
                self._failed.setdefault(key, deque()).append(now)
                self._failed.move_to_end(key)
            self._forget_surplus(now, keys)
        return 0.0

    def failures(self, account: str) -> int:
        """How many of an account's attempts failed lately."""
        with self._lock:
            return len(self._failed.get(("account", account), ()))

    def succeeded(self, account: str, address: str) -> int:
        """Forget the account's failures, and this attempt of the address; returns how many had failed."""
        with self._lock:
            failed = len(self._failed.pop(("account", account), ())) - 1
            if times := self._failed.get(("address", network_of(address))):
                times.pop()
        return max(failed, 0)

    def take_unheard(self) -> int:
        """How many attempts were turned away unheard since this was asked last."""
        with self._lock:
            count, self._unheard = self._unheard, 0
        return count

    def _forget_surplus(self, now: float, fresh: Collection[tuple[str, str]]) -> None:
        surplus = max(len(self._failed) - MOST_KEYS, 0)
        idle = (key for key in self._failed if key not in fresh and not self._wait(key, now))
        for key in list(islice(idle, surplus)):
            del self._failed[key]

    def _wait(self, key: tuple[str, str], now: float) -> float:
        most = _MOST[key[0]]
        times = self._failed.get(key)
        while times and times[0] <= now - WINDOW_SECONDS:
            times.popleft()
        return times[-most] + WINDOW_SECONDS - now if times and len(times) >= most else 0.0


def network_of(address: str) -> str:
    """What an address counts as: one of IPv4 itself, one of IPv6 its network of 64 bits."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((int(known) >> 64 << 64, 64)))
