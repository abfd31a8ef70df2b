"""The gaps of a simulation's ``results.json``, for its metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from cli.results import Results
from reconsent.errors import ConfigError
from server.metrics.simulated import Gaps

_SETS = ("retain_test", "forget_test", "forget_train")


class GapsFile:
    """Reads a results file whenever it has changed; to be called at each scrape.

    Parameters
    ----------
    path
        The file; may come to be later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._gaps: Gaps | None = None

    @classmethod
    def beside(cls, state: Path) -> Self:
        """That of the simulation with this state directory."""
        return cls(state.parent / "results.json")

    def __call__(self) -> Gaps | None:
        """What it says; ``None`` if it is not there, cannot be read, or speaks of no oracle."""
        try:
            found = self.path.stat()
        except OSError:
            self._stamp = self._gaps = None
            return None
        stamp = found.st_ino, found.st_size, found.st_mtime_ns
        if stamp != self._stamp:
            self._stamp, self._gaps = stamp, _read(self.path)
        return self._gaps


def _read(path: Path) -> Gaps | None:
    try:
        results = Results.load(path)
    except ConfigError:
        return None
    unlearned, method = results.models.get("unlearned"), results.method or ""
    if unlearned is None:
        return None
    gap = results.oracle_gap.get(method)
    return Gaps(
        sha256=unlearned.sha256,
        oracle={} if gap is None else {name.replace("_", "-"): getattr(gap, name) for name in _SETS},
        relearn=dict(results.relearn_gap.get(method, {})),
        at=results.created,
    )
