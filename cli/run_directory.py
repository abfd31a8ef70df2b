"""Where a simulation keeps everything, and how its processes find it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconsent.config import ConsortiumConfig, dump_consortium, load_consortium
from reconsent.environment import (
    CONSORTIUM_VARIABLE,
    LEDGERS_VARIABLE,
    PHANTOMS_VARIABLE,
    STATE_VARIABLE,
)
from reconsent.errors import ConfigError, ReconsentError
from reconsent.files import write_atomically
from reconsent.log_lines import FORMAT_VARIABLE, NOTHING

_NAMED = 5
"""Foreign files that an error names."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Where a simulation keeps everything: ``consortium.toml``, ``data/``, ``state/``, and what it found."""

    path: Path

    @property
    def consortium(self) -> Path:
        """The resolved consortium file."""
        return self.path / "consortium.toml"

    @property
    def data(self) -> Path:
        """Phantoms, one directory a site."""
        return self.path / "data"

    @property
    def state(self) -> Path:
        """The server's state directory."""
        return self.path / "state"

    @property
    def privacy(self) -> Path:
        """The sites' privacy ledgers."""
        return self.path / "privacy"

    @property
    def results(self) -> Path:
        """``results.json``."""
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        """``report.html``."""
        return self.path / "report.html"

    def prepare(self, consortium: ConsortiumConfig) -> None:
        """Write the consortium file, or check that a run to be taken up again is the same one.

        Raises
        ------
        ConfigError
            If the directory holds a run of another consortium, or something else than a run.
        ReconsentError
            If it cannot be written to.
        """
        with writing(self.path):
            self._prepare(consortium)

    def _prepare(self, consortium: ConsortiumConfig) -> None:
        text = dump_consortium(consortium)
        if self.consortium.exists():
            if load_consortium(self.consortium) != consortium:
                raise ConfigError(
                    f"{self.path} holds a run of a different consortium (see {self.consortium}).",
                    "Choose another --out, or remove that directory.",
                )
            return
        if foreign := self._foreign():
            raise ConfigError(
                f"{self.path} holds what is not of a run ({', '.join(foreign)}); nothing was written there.",
                "Choose another --out: a new directory, or that of a run to be taken up again.",
            )
        write_atomically(self.consortium, text.encode())

    def _foreign(self) -> list[str]:
        """What lies there, and no run would have put there; the first few names."""
        own = {place.name for place in (self.data, self.state, self.privacy, self.results, self.report)}
        there = self.path.iterdir() if self.path.is_dir() else iter(())
        found = sorted(each.name for each in there if each.name not in own and not each.name.startswith("."))
        return found if len(found) <= _NAMED else [*found[:_NAMED], f"{len(found) - _NAMED} more"]

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Tell server, sites and workers, in this and in new processes, where all is; undone at the end.

        Whatever this process starts later must not inherit it: a real consortium's sites would take the
        simulation's privacy ledgers for their own.
        """
        changes = {
            CONSORTIUM_VARIABLE: str(self.consortium.resolve()),
            PHANTOMS_VARIABLE: str(self.data.resolve()),
            STATE_VARIABLE: str(self.state.resolve()),
            LEDGERS_VARIABLE: str(self.privacy.resolve()),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            # The sites' lines would come between the pictures of the progress.
            FORMAT_VARIABLE: os.environ.get(FORMAT_VARIABLE) or NOTHING,
            # Ray starts its workers with niceness 15: on a busy machine they would hardly ever run.
            "RAY_worker_niceness": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "OMP_NUM_THREADS": "1",
            # A training step takes and frees thousands of small arrays: kept by the allocator, not given back
            # to the system and cleared again each time.
            "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
            "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
        }
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """What cannot be written below ``directory`` is an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise ReconsentError(
            f"The run cannot be written to {directory}: {error}.",
            "Choose with --out a directory that is writable and has room; the same command with the same "
            "--out takes an interrupted run up again.",
        ) from None
