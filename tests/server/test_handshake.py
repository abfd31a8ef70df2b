"""Who may take part: nodes that say plausibly who they are, each site once."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconsent.errors import RoundError
from server.bookkeeping import MAIN
from strategies.local_grid import LocalGrid
from tests.linear_app import hospital_app
from tests.server.hospitals import SITES, centres, consortium, grid, opened


def test_two_nodes_claiming_one_site(tmp_path: Path) -> None:
    """The node with the lower id is the site, the other gets no work, and the operator is told why."""
    nodes = grid(twin={"site": "beta", "examples": 50})
    with opened(tmp_path, consortium(), nodes, simulated=False) as run:
        run.coordinator.run()
        assert run.coordinator.active_nodes() == dict(enumerate(SITES, start=1))
        assert [m.metadata.message_type for m in nodes.sent if m.metadata.dst_node_id == 100] == [
            "query.identify"
        ]
        (notice,) = run.texts("notice")
        assert "100" in notice
        assert "'beta', which another node is already" in notice


def test_node_of_an_unknown_site(tmp_path: Path) -> None:
    """A node of a site that is not in the consortium is refused by name, and the run goes on."""
    nodes = grid(stranger={"site": "omega"})
    with opened(tmp_path, consortium(), nodes, simulated=False) as run:
        run.coordinator.run()
        assert 100 not in run.coordinator.active_nodes()
        assert [e.site for e in run.books.roster.all()] == sorted(SITES)
        assert "'omega', which is not expected" in run.texts("notice")[0]
        assert run.books.log.count(MAIN) == 6


def test_site_that_changed_its_organ(tmp_path: Path) -> None:
    """A site that enrols with another organ than before is left out, and the others go on without it."""
    with opened(tmp_path, consortium(training={"rounds": 2}), simulated=False) as run:
        run.coordinator.run()
    nodes = grid(beta={"organ": "knee"})
    with opened(tmp_path, consortium(), nodes, simulated=False) as run:
        run.coordinator.run()
        assert "beta" not in run.coordinator.active_nodes().values()
        first, second = run.texts("notice")
        assert "organ 'knee'" in first
        assert "'brain' before" in first
        assert second == "Going on without beta."
        later = [set(r.sites) for r in run.books.log.all(MAIN) if r.round > 2]
        assert later == [{"alpha", "gamma", "delta"}] * 4


def test_too_few_sites(tmp_path: Path) -> None:
    """Below min-sites the run does not begin, and the error says who is missing, who was refused and why."""
    nodes = grid(("alpha", "beta", "gamma"), stranger={"site": "omega"})
    config = consortium(training={"min-sites": 4})
    with opened(tmp_path, config, nodes, simulated=False) as run, pytest.raises(RoundError) as caught:
        run.coordinator.run()
    assert "Only 3 of 4 sites" in caught.value.problem
    assert "missing: delta" in caught.value.problem
    assert "Node 100: it says it is site 'omega'" in caught.value.problem
    assert "min-sites" in caught.value.remedy
    assert not any(m.metadata.message_type == "train" for m in nodes.sent)


def test_simulation_wants_every_site(tmp_path: Path) -> None:
    """In a simulation a missing site is a mistake in the number of nodes, and the error says which it is."""
    nodes = grid(("alpha", "beta"))
    with opened(tmp_path, consortium(), nodes) as run, pytest.raises(RoundError) as caught:
        run.coordinator.run()
    assert "missing: delta, gamma" in caught.value.problem
    assert "num-supernodes=4" in caught.value.remedy


def test_a_node_that_cannot_answer(tmp_path: Path) -> None:
    """What a node raises when asked who it is stands in the refusal."""
    configs = {n: {"site": site} for n, site in enumerate(SITES, start=1)}
    nodes = LocalGrid(hospital_app(centres()), {**configs, 9: {}})
    with opened(tmp_path, consortium(training={"rounds": 1}), nodes, simulated=False) as run:
        run.coordinator.run()
        assert "Node 9 is refused: app_error: KeyError: 'site'" in run.texts("notice")


def test_withdrawn_sites_are_not_expected(tmp_path: Path) -> None:
    """A later run asks a withdrawn site's node for its name only, and does not let it in."""
    config = consortium(withdrawals=({"sites": ("delta",)},))
    with opened(tmp_path, config) as run:
        run.coordinator.run()
    nodes = grid()
    with opened(tmp_path, config.model_copy(update={"continue_rounds": 1}), nodes) as run:
        run.coordinator.run()
        assert 4 not in run.coordinator.active_nodes()
        assert run.texts("notice") == [], "that it is not let in is no news"
        assert [m.metadata.message_type for m in nodes.sent if m.metadata.dst_node_id == 4] == [
            "query.identify"
        ]


def test_node_that_counts_in_words(tmp_path: Path) -> None:
    """A node whose number of examples is no number is refused, and the run goes on without it."""
    nodes = grid(beta={"counts": "many"})
    with opened(tmp_path, consortium(), nodes, simulated=False) as run:
        run.coordinator.run()
        assert "beta" not in run.coordinator.active_nodes().values()
        assert "whole number, got 'many'" in run.texts("notice")[0]
