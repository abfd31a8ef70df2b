"""The same rounds in one process to which nothing happens, and what is kept of them."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from hashlib import sha256
from itertools import groupby
from pathlib import Path

import pytest

from client.app import app
from reconsent.config import ConsortiumConfig
from reconsent.environment import CONSORTIUM_VARIABLE, PHANTOMS_VARIABLE
from server.bookkeeping import MAIN
from server.coordinator import Coordinator
from server.persistence import ModelRegistry, StateDirectory
from server.persistence.state import DATABASE
from server.safekeeping import cache_policy, key_policy
from server.service import Service, Task
from strategies.local_grid import LocalGrid
from tests.integration.one_thread import one_thread
from tests.integration.operator_at_work import Operator
from unlearning.contributions import ContributionCache
from unlearning.site_keys import SiteKeys

Kept = tuple[str, dict[str, tuple[list[int], str, str]]]
"""The newest model's hash; of each site the rounds that its contribution is of, and hashes of what it is."""


def copied(operator: Operator, directory: Path) -> Path:
    """The state as it is now, without keys of nodes: there are none in one process."""
    copy = directory / "copy"
    shutil.copytree(operator.state, copy, ignore=shutil.ignore_patterns("deployment"))
    with closing(sqlite3.connect(copy / DATABASE)) as database, database:
        database.execute("DELETE FROM enrolments")
    return copy


def repeated(
    operator: Operator, config: ConsortiumConfig, copy: Path, before: int, patch: pytest.MonkeyPatch
) -> Kept:
    """What is kept when the rounds after the first ``before`` are done in one process, from the copy.

    The sites whose replies failed are not there then, and nothing else happens.
    """
    patch.setenv(CONSORTIUM_VARIABLE, str(operator.layout.consortium))
    patch.setenv(PHANTOMS_VARIABLE, str(operator.layout.sites))
    rounds = [{s for s, o in r.sites.items() if o.outcome == "ok"} for r in operator.records()[before:]]
    with one_thread(), StateDirectory.open(copy, url="") as state:
        for there, group in groupby(rounds):
            nodes = {n: {"site": s.name} for n, s in enumerate(config.sites, start=1) if s.name in there}
            alone = Coordinator(LocalGrid(app, nodes), hurried(config), state, simulated=False)
            Service(alone).carry_out(Task("train", len(list(group))))
    return kept(copy, config)


def hurried(config: ConsortiumConfig) -> ConsortiumConfig:
    """The same, but nobody waits for sites that are not there."""
    training = config.training.model_copy(update={"join_seconds": 0.01})
    return config.model_copy(update={"training": training})


def kept(path: Path, config: ConsortiumConfig) -> Kept:
    """What there is in a state directory."""
    with StateDirectory.open(path, url="", writable=False) as state:
        keys = SiteKeys(state.keys_dir, key_policy(config))
        cache = ContributionCache(
            state.contributions_dir, state.reading, cache_policy(config), line=MAIN, keys=keys
        )
        return digest(state), {
            site: (
                sorted(cache.shares(site)),
                sha256(cache.running(site, "sum")).hexdigest(),
                sha256(cache.running(site, "specific")).hexdigest(),
            )
            for site in cache.sites()
        }


def digest(state: StateDirectory) -> str:
    """Of the newest model."""
    latest = ModelRegistry(state).latest(MAIN)
    assert latest is not None
    return latest.digest
