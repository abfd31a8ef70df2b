"""Counts what a site's log says, reading only the lines that came since the last time."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

from client.metrics import catalogue
from client.site_log import DAY_SECONDS, LogError
from reconsent.exposition import DurationCounts, Samples

OUTCOMES = ("worked", "refused", "failed")
ALWAYS = ("train", "evaluate")
KINDS = (*ALWAYS, "query")

_CODE = re.compile(r"[a-z][a-z-]{0,31}")


class LogReader:
    """Follows a site's log through appends, truncation and replacement.

    Only closed sets become labels: types of message, outcomes, codes of refusals. Whatever else a line holds,
    such as a name that somebody wrote into it, stays in it.

    Parameters
    ----------
    path
        The log; may come to be later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget(None)

    def read(self) -> None:
        """Take up the lines that were added.

        Raises
        ------
        LogError
            If the log is there and cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                size, inode = (found := self.path.stat()).st_size, found.st_ino
                if inode != self._inode or size < self._offset:
                    self._forget(inode)
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # still being written
                    self._offset += len(line)
                    self._take(line)
        except FileNotFoundError:
            self._forget(None)
        except OSError as error:
            raise LogError(
                f"The site's log {self.path} cannot be read: {error}.", "Mend its permissions."
            ) from None

    def collect(self, samples: Samples) -> None:
        """Fill in the metrics of messages."""
        for kind in sorted({*ALWAYS, *(kind for kind, _ in self._messages)}):
            for outcome in OUTCOMES:
                samples.set(catalogue.MESSAGES, self._messages[kind, outcome], kind, outcome)
        for reason, number in sorted(self._refusals.items()):
            samples.set(catalogue.REFUSALS, number, reason)
        for kind, counts in sorted(self._durations.items()):
            samples.distribution(catalogue.DURATION, counts, kind)
        samples.set(catalogue.BYTES, self._bytes["received"], "received")
        samples.set(catalogue.BYTES, self._bytes["sent"], "sent")
        samples.set(catalogue.LAST, self._last)
        samples.set(catalogue.ROUND, self._round)
        since = time.time() - DAY_SECONDS
        while self._trainings and self._trainings[0] < since:
            self._trainings.popleft()
        samples.set(catalogue.TRAINED, len(self._trainings))

    def _forget(self, inode: int | None) -> None:
        self._inode, self._offset = inode, 0
        self._messages: Counter[tuple[str, str]] = Counter()
        self._refusals: Counter[str] = Counter()
        self._durations: dict[str, DurationCounts] = {}
        self._bytes: Counter[str] = Counter()
        self._trainings: deque[float] = deque()
        self._last: float | None = None
        self._round: float | None = None

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return  # torn by a power cut
        if not isinstance(entry, dict):
            return
        event = entry.get("event")
        kind = str(entry.get("type", "")).partition(".")[0]
        kind = kind if kind in KINDS else "other"
        at = _number(entry.get("time"))
        self._last = max(self._last or 0.0, at) if at is not None else self._last
        if event not in OUTCOMES:
            return
        self._messages[kind, str(event)] += 1
        self._bytes["received"] += int(_number(entry.get("bytes-received")) or 0)
        self._bytes["sent"] += int(_number(entry.get("bytes-sent")) or 0)
        if event == "refused":
            reason = str(entry.get("reason", ""))
            self._refusals[reason if _CODE.fullmatch(reason) else "other"] += 1
        if event == "worked":
            self._worked(kind, entry, at)

    def _worked(self, kind: str, entry: dict[str, Any], at: float | None) -> None:
        if (seconds := _number(entry.get("seconds"))) is not None:
            self._durations.setdefault(kind, DurationCounts()).observe(seconds)
        if kind == "train":
            self._round = _number(entry.get("round"))
            if at is not None:
                self._trainings.append(at)


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)
