"""Consortia that are trained once, and unlearned from there again and again.

The same server, sites and strategies as in ``reconsent simulate``; instead of on Flower's simulation engine,
each site's messages are answered in worker processes of :class:`strategies.local_grid.LocalGrid`.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord

from cli.assessment import Observer
from cli.consortium_data import prepare_data
from cli.gathering import watching
from cli.gauge import Figures, Gauge
from cli.run_directory import RunDirectory
from reconsent.config import ConsortiumConfig
from reconsent.files import write_atomically
from server.bookkeeping import MAIN, ORACLE
from server.coordinator import Coordinator
from server.persistence import StateDirectory
from strategies import messages as msg
from strategies.local_grid import LocalGrid

BASELINE = "baseline.json"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One unlearning by one method at one setting.

    Attributes
    ----------
    figures
        Of the unlearned model.
    gaps, relearn_gaps
        PSNR over the oracle's in dB; zero is perfect in both directions.
    cost
        ``rounds``, ``client_seconds``, ``slices`` that were trained on, and ``bytes``, each over that of the
        training. Slices, unlike seconds, are the same on every machine, busy or not.
    notes
        What the strategy says of each round.
    seconds
        Wall-clock duration of the unlearning.
    """

    figures: Figures
    gaps: dict[str, float]
    relearn_gaps: dict[str, float]
    cost: dict[str, float]
    notes: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class TrainedConsortium:
    """A consortium trained to its end, its oracle, and an observer with everybody's data.

    Made by :func:`trained`. An attempt changes nothing of the state: every method begins from the same G.

    Attributes
    ----------
    left
        The sites that withdraw.
    original, oracle
        What the observer finds of G and Ĝ.
    """

    def __init__(self, coordinator: Coordinator, observer: Observer, directory: RunDirectory) -> None:
        self.coordinator = coordinator
        self.left = leaving(coordinator.consortium)
        self._gauge = Gauge(observer, coordinator.consortium, self.left)
        known = directory.path / BASELINE
        if not known.exists():
            books = coordinator.books
            found = {
                "original": asdict(self.measure(books.arrays(books.version(MAIN, "train")))),
                "oracle": asdict(self.measure(books.arrays(books.version(ORACLE)))),
            }
            write_atomically(known, json.dumps(found).encode())
        table = json.loads(known.read_text())
        self.original, self.oracle = Figures(**table["original"]), Figures(**table["oracle"])

    def attempt(self, method: str, settings: Mapping[str, Any]) -> Attempt:
        """Unlearn by ``method`` from G, and measure what comes of it.

        Raises
        ------
        ReconsentError
            If the method cannot run: unknown settings, something it needs was not kept, a model that
            diverges.
        """
        c = self.coordinator
        left = frozenset(self.left)
        # All sites are there, also those that leave: a cooperating method may ask them for its part.
        rounds = c.consortium.training.rounds
        strategy = c.method(left, rounds, method, settings, cooperating=left, staying=staying(c.consortium))
        began = time.time()
        arrays = strategy.begin(c.grid, c.books.arrays(c.books.version(MAIN, "train")))
        outcomes = []
        # The same round numbers, hence the same batches, as in a real run.
        first = c.books.log.last_round(MAIN) + 1
        for outcome in strategy.rounds(c.grid, arrays, strategy.num_rounds, first_round=first):
            arrays = outcome.arrays
            outcomes.append(outcome)
        arrays = strategy.finish(arrays)
        seconds = time.time() - began
        trained = c.books.log.cost(MAIN, {"train"})
        sites = [site for outcome in outcomes for site in outcome.sites]
        spent = sum(site.metrics.get(msg.SECONDS, 0.0) for site in sites)
        moved = sum(site.bytes_down + site.bytes_up for site in sites)
        seen = sum(site.metrics.get(msg.TRAINED_SLICES, 0.0) for site in sites)
        watched_seconds, watched_bytes = watching([outcome.notes for outcome in outcomes])
        figures = self.measure(arrays)
        return Attempt(
            figures=figures,
            gaps={k: figures.psnr[k] - self.oracle.psnr[k] for k in figures.psnr},
            relearn_gaps={k: figures.relearn[k] - self.oracle.relearn[k] for k in figures.relearn},
            cost={
                "rounds": len(outcomes) / c.consortium.training.rounds,
                "client_seconds": (spent + watched_seconds) / (trained.client_seconds or math.inf),
                "slices": seen / (self._trained_slices() or math.inf),
                "bytes": (moved + watched_bytes) / (trained.bytes_up + trained.bytes_down or 1),
            },
            notes=[{"accepted": float(outcome.accepted), **outcome.notes} for outcome in outcomes],
            seconds=seconds,
        )

    def _trained_slices(self) -> int:
        training = self.coordinator.consortium.training
        sites = self.coordinator.books.roster.all()
        a_round = [
            (training.local_steps or 0) * training.batch_size or training.local_epochs * site.num_examples
            for site in sites
        ]
        return training.rounds * sum(a_round)

    def measure(self, arrays: ArrayRecord) -> Figures:
        """Measure a model on all test volumes, the leavers' training data, and by relearning."""
        return self._gauge.measure(msg.named_arrays(arrays))

    def accuracy(self, arrays: ArrayRecord) -> dict[str, float]:
        """PSNR in dB on ``retain_test``, ``forget_test`` and ``forget_train``, means over volumes."""
        return self._gauge.accuracy(msg.named_arrays(arrays))


def leaving(consortium: ConsortiumConfig) -> list[str]:
    """The sites that the consortium file withdraws, in the order of their names."""
    return sorted({site for withdrawal in consortium.withdrawals for site in withdrawal.sites})


def staying(consortium: ConsortiumConfig) -> frozenset[str]:
    """The sites that only some of their patients leave."""
    return frozenset(leaving(consortium)) - set(consortium.leavers())


@contextmanager
def trained(
    path: Path, consortium: ConsortiumConfig, *, workers: int, like: Path | None = None
) -> Iterator[TrainedConsortium]:
    """Train a consortium and its oracle, or take them up where they were; then unlearn as often as wished.

    Parameters
    ----------
    path
        Directory of the run.
    consortium
        What is trained; its withdrawals name the sites that leave, or the patients who leave one that stays.
    workers
        Processes; 0 does everything in this one.
    like
        Directory of a run of :func:`train` that differs only in who leaves: its training is taken over.

    Raises
    ------
    ConfigError
        If ``path`` holds a run of another consortium.
    """
    directory = RunDirectory(path)
    if like is not None and not path.exists():
        _take_over(like, path)
    left, rounds = set(leaving(consortium)), consortium.training.rounds
    with coordinating(directory, consortium, workers) as coordinator:
        coordinator.initialise(left)
        coordinator.train(rounds)
        # From here on their sites leave them out, in the oracle's training and in every attempt.
        coordinator.patients_left = lambda: staying(consortium)
        coordinator.retrain_oracle(set(consortium.leavers()), rounds)
        with Observer(directory.consortium, coordinator.books.registry, workers=workers) as observer:
            yield TrainedConsortium(coordinator, observer, directory)


def train(path: Path, consortium: ConsortiumConfig, *, workers: int) -> None:
    """Train a consortium in which nobody leaves, for :func:`trained` to take over.

    Raises
    ------
    ConfigError
        If ``path`` holds a run of another consortium.
    """
    with coordinating(RunDirectory(path), consortium, workers) as coordinator:
        coordinator.initialise()
        coordinator.train(consortium.training.rounds)


@contextmanager
def coordinating(
    directory: RunDirectory, consortium: ConsortiumConfig, workers: int
) -> Iterator[Coordinator]:
    """The server of a simulation that has met its sites; these in worker processes, or (0) in this one."""
    directory.prepare(consortium)
    nodes = {number: {"partition-id": number - 1} for number in range(1, len(consortium.sites) + 1)}
    with directory.environment():
        prepare_data(consortium, lambda *_: None)
        grid = LocalGrid("client.app:app", nodes, workers=workers)
        try:
            with StateDirectory.open(directory.state) as state:
                coordinator = Coordinator(grid, consortium, state, simulated=True)
                coordinator.meet()
                yield coordinator
        finally:
            grid.close()


def _take_over(source: Path, target: Path) -> None:
    """Copy a run; whole or not at all."""
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns("consortium.toml", "*.lock"))
    unfinished.rename(target)
