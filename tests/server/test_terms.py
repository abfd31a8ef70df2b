"""Sites that work by another consortium file, or claim more than was agreed, are not let in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from client.app import app
from reconsent.agreement import shared_parts
from reconsent.config import ConsortiumConfig, dump_consortium
from reconsent.environment import CONSORTIUM_VARIABLE, PHANTOMS_VARIABLE
from reconsent.errors import RoundError
from server import membership
from server.bookkeeping import MAIN
from server.persistence import Ledger
from strategies import messages as msg
from strategies.local_grid import LocalGrid
from tests.server.hospitals import SITES, Run, consortium, grid, opened

CONFIG = consortium(training={"rounds": 1, "evaluate-every": 0})


def told_by(config: ConsortiumConfig, site: str) -> dict[str, Any]:
    """What a site with this file says of it."""
    return {
        "consortium": config.name,
        **{msg.SHARED + part: digest for part, digest in shared_parts(config, site).items()},
    }


def refusals(run: Run) -> list[dict[str, Any]]:
    """Those in the ledger."""
    return [
        dict(entry.body) for entry in Ledger(run.coordinator.state).entries() if entry.kind == "site-refused"
    ]


def test_a_site_with_another_file_is_refused_by_name(tmp_path: Path) -> None:
    """The others go on; the reason says what differs and what to do, and is in the ledger once a run."""
    other = consortium(name="other", model={"cascades": 5}, training={"rounds": 9, "local-epochs": 7})
    said: dict[str, Any] = {site: told_by(CONFIG, site) for site in SITES}
    said["beta"] = told_by(other, "beta")
    nodes = grid(**said)
    with opened(tmp_path, CONFIG, nodes, simulated=False) as run:
        run.coordinator.run()
        assert {site for record in run.books.log.all(MAIN) for site in record.sites} == {
            "alpha",
            "gamma",
            "delta",
        }
        refused, going_on = run.texts("notice")
        assert "Node 2 is refused: its consortium file is not the server's" in refused
        assert "of consortium 'other', not 'quadratic'; [model] differs; what [training]" in refused
        assert "Give site 'beta' a copy of the server's file" in refused
        assert going_on == "Going on without beta."
        entry = {"node": "2", "site": "beta", "why": "consortium", "parts": ["model", "name", "training"]}
        assert refusals(run) == [entry]
        run.coordinator.meet()
        assert refusals(run) == [entry]


def test_a_mended_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site is asked again after a while within the run, and joins when its file is the server's."""
    monkeypatch.setattr(membership, "ASK_AGAIN_SECONDS", 0.0)
    nodes = grid(beta=told_by(consortium(seed=9), "beta"))
    with opened(tmp_path, CONFIG, nodes, simulated=False) as run:
        run.coordinator.meet()
        run.coordinator.membership.refresh(1)
        assert "beta" not in run.coordinator.active_nodes().values()
        assert len(refusals(run)) == 1
        nodes._nodes[2].update(told_by(CONFIG, "beta"))
        run.coordinator.membership.refresh(1)
        assert "beta" in run.coordinator.active_nodes().values()
        assert run.texts("notice")[-1] == "Site beta has joined."


def test_the_real_site_tells_of_its_own_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the server's file the real ClientApp is let in; with another seed it is not."""
    table = {
        "name": "two",
        "sites": [
            {"name": name, "organ": "brain", "phantom": {"patients": 2, "slices": 1, "matrix": [32, 32]}}
            for name in ("north", "south")
        ],
        "model": {"name": "unet", "channels": 2, "pools": 1},
        "training": {"join-seconds": 0.01},
    }
    config = ConsortiumConfig.model_validate(table)
    file = tmp_path / "consortium.toml"
    file.write_text(dump_consortium(config), encoding="utf-8")
    monkeypatch.setenv(CONSORTIUM_VARIABLE, str(file))
    monkeypatch.setenv(PHANTOMS_VARIABLE, str(tmp_path / "phantoms"))
    nodes = LocalGrid(app, {1: {"site": "north"}, 2: {"site": "south"}})
    with opened(tmp_path / "same", config, nodes, simulated=False) as run:
        run.coordinator.meet()
        assert set(run.coordinator.active_nodes().values()) == {"north", "south"}
        assert refusals(run) == []
    with opened(tmp_path / "other", config.model_copy(update={"seed": 1}), nodes, simulated=False) as run:
        with pytest.raises(RoundError, match=r"Only 0 of 2 sites .*server's: seed differs"):
            run.coordinator.meet()
        assert [entry["parts"] for entry in refusals(run)] == [["seed"]] * 2


def test_a_site_has_a_limit_of_its_own(tmp_path: Path) -> None:
    """What was agreed with a site goes before the limit for all, in both directions; ledgered as well."""
    sites: list[dict[str, Any]] = [{"name": name, "organ": "brain"} for name in SITES]
    sites[1] |= {"max-examples": 1}
    sites[3] |= {"max-examples": 4}
    config = consortium(sites=sites, screening={"max-examples": 3}, training={"rounds": 1})
    with opened(tmp_path, config, grid(), simulated=False) as run:
        run.coordinator.run()
        assert set(run.coordinator.active_nodes().values()) == {"alpha", "gamma", "delta"}
        assert (
            "2 training examples, and 1 are allowed (max-examples of site 'beta')" in run.texts("notice")[0]
        )
        assert refusals(run) == [{"node": "2", "site": "beta", "why": "examples", "parts": []}]
