"""Four quadratic sites, the fourth of which leaves: every method's model is known in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord

from strategies import ContributionAveraging, Departure, RoundOutcome, UnlearningStrategy, build_method
from strategies import messages as msg
from strategies.local_grid import LocalGrid
from tests.linear_app import model, quadratic_app
from unlearning.contributions import CachePolicy, ContributionCache

RNG = np.random.default_rng(1)
CENTRES = {i: RNG.standard_normal(30) * 3 for i in (1, 2, 3, 4)}
EXAMPLES = {1: 2, 2: 3, 3: 4, 4: 1}
NODES = {i: {"examples": n} for i, n in EXAMPLES.items()}
LEAVER = "node-4"
SHARE = 0.1
RATE = 0.05
ROUNDS = 20
START = model(np.zeros(30))
EVERYBODY = sum(n / 10 * CENTRES[i] for i, n in EXAMPLES.items())
"""Optimum of all sites' loss together."""
REMAINING = sum(EXAMPLES[i] / 9 * CENTRES[i] for i in (1, 2, 3))
"""Optimum of the remaining sites' loss."""


def theta(record: ArrayRecord) -> np.ndarray:
    """The model as a vector."""
    return msg.named_arrays(record)["theta"].astype(np.float64)


def path(rounds: int, optimum: np.ndarray, start: np.ndarray | float = 0.0) -> np.ndarray:
    """Where federated averaging is after ``rounds``: c + (1 − η)ᵗ (θ₀ − c)."""
    return optimum + (1 - RATE) ** rounds * (start - optimum)


def update(site: int, round_: int) -> np.ndarray:
    """Δ of a site in a training round (from 1): η (cᵢ − θᵗ⁻¹)."""
    return RATE * (CENTRES[site] - path(round_ - 1, EVERYBODY))


def trained(
    directory: Path, *, rounds: int = ROUNDS, **policy: Any
) -> tuple[LocalGrid, dict[int, ArrayRecord], ContributionCache]:
    """Train with everybody; returns the grid, the model after every round, and the cache."""
    grid = LocalGrid(quadratic_app(CENTRES, rate=RATE), NODES)
    kept = {"history_every": 1, "history_dtype": "float32", **policy}
    cache = ContributionCache.open(directory, CachePolicy(**kept))
    strategy = ContributionAveraging(cache=cache)
    models = {0: START}
    for outcome in strategy.rounds(grid, START, rounds):
        strategy.commit(outcome.round)
        models[outcome.round] = outcome.arrays
    grid.sent.clear()
    return grid, models, cache


def departure(
    models: dict[int, ArrayRecord], *, budget: int = 2, kept: tuple[int, ...] = (), **more: Any
) -> Departure:
    """The fourth site leaves after the last of ``models``; of the former ones ``kept`` are there."""
    last = max(models)
    there = {t: (lambda t=t: models[t]) for t in sorted({0, last, *kept})}
    return Departure(frozenset({LEAVER}), last, budget, 0.1, lambda: START, models=there, **more)


def unlearn(
    name: str,
    settings: dict[str, object],
    grid: LocalGrid,
    models: dict[int, ArrayRecord],
    cache: ContributionCache | None,
    **how: Any,
) -> tuple[UnlearningStrategy, list[RoundOutcome], np.ndarray]:
    """Run a method as a server does; returns it, its rounds, and the unlearned model."""
    strategy = build_method(name, settings, departure(models, **how), cache=cache)
    last = max(models)
    arrays = strategy.begin(grid, models[last])
    outcomes = list(strategy.rounds(grid, arrays, strategy.num_rounds, first_round=last + 1))
    after = strategy.finish(outcomes[-1].arrays if outcomes else arrays)
    return strategy, outcomes, theta(after)
