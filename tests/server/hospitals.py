"""A consortium of quadratic hospitals on a local grid: the real server and a real ClientApp, no MRI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from reconsent.config import ConsortiumConfig
from server.bookkeeping import MAIN, ORACLE
from server.coordinator import Coordinator
from server.events import Event, listening
from server.persistence import StateDirectory
from strategies.local_grid import LocalGrid
from tests.linear_app import hospital_app

SITES = ("alpha", "beta", "gamma", "delta")
SIZE = 24


def consortium(**changes: Any) -> ConsortiumConfig:
    """Four hospitals, six rounds; keys in kebab case or snake case replace or extend the tables."""
    table: dict[str, Any] = {
        "name": "quadratic",
        "sites": [{"name": name, "organ": "brain"} for name in SITES],
        "training": {
            "rounds": 6,
            "learning-rate": 1.0,
            "evaluate-every": 3,
            "join-seconds": 0.01,
            "timeout-seconds": 5,
        },
        "unlearning": {"method": "cached-ascent", "rounds-fraction": 0.34, "settings": {"alpha": 0.5}},
    }
    for key, value in changes.items():
        name = key.replace("_", "-")
        table[name] = {**table[name], **value} if isinstance(table.get(name), dict) else value
    return ConsortiumConfig.model_validate(table)


def grid(sites: tuple[str, ...] = SITES, **nodes: dict[str, Any]) -> LocalGrid:
    """One node a site, numbered from 1; ``nodes`` changes single nodes' configurations, or adds some."""
    configs = {
        number: {"site": site, "examples": number, **nodes.get(site, {})}
        for number, site in enumerate(sites, start=1)
    }
    extras = [nodes[name] for name in nodes if name not in sites]
    configs |= dict(enumerate(extras, start=100))
    return LocalGrid(hospital_app(centres()), configs)


def centres() -> dict[str, np.ndarray]:
    """Where each hospital's loss is least."""
    rng = np.random.default_rng(5)
    return {site: rng.standard_normal(SIZE) for site in (*SITES, "omega")}


class Run:
    """What a run left behind."""

    def __init__(self, coordinator: Coordinator, events: list[Event], sent_at: dict[str, int]) -> None:
        self.coordinator = coordinator
        self.books = coordinator.books
        self.events = events
        self.sent_at = sent_at
        """Event text → messages sent before it."""

    def theta(self, line: str = MAIN, *kinds: str) -> np.ndarray:
        """The newest model of a line."""
        version = self.books.version(line, *kinds)
        return np.array(self.books.registry.load(version.id, force=True)["theta"])

    def digests(self) -> tuple[str | None, str | None]:
        """The final models of training and oracle, as they are named in the registry."""
        found = [self.books.registry.latest(line) for line in (MAIN, ORACLE)]
        return tuple(version.digest if version else None for version in found)  # type: ignore[return-value]

    def texts(self, kind: str) -> list[str]:
        """What was announced."""
        return [event.text for event in self.events if event.kind == kind]


@contextmanager
def opened(
    path: Path,
    config: ConsortiumConfig,
    nodes: LocalGrid | None = None,
    *,
    simulated: bool = True,
    url: str = "",
) -> Iterator[Run]:
    """A coordinator on a state directory, with what it announces."""
    nodes = nodes or grid()
    events: list[Event] = []
    sent_at: dict[str, int] = {}

    def listen(event: Event) -> None:
        events.append(event)
        sent_at.setdefault(event.text, len(nodes.sent))

    with StateDirectory.open(path / "state", url=url) as state, listening(listen):
        yield Run(Coordinator(nodes, config, state, simulated=simulated), events, sent_at)
