"""Every scenario, played at the smallest size by the real server and sites."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from cli.scenarios.catalogue import Check, Scenario, consortium_of, load_scenario, names
from cli.scenarios.judging import Finding, _values
from cli.simulation import RunDirectory, prepare_data
from reconsent.errors import ConfigError
from server.bookkeeping import MAIN, Bookkeeping
from server.coordinator import Coordinator
from server.persistence import SiteStatus, StateDirectory, Withdrawals
from strategies.local_grid import LocalGrid
from unlearning.withdrawal import WithdrawalState

Rounds = list[tuple[str, frozenset[str]]]


Played = tuple[Rounds, dict[str, SiteStatus], list[WithdrawalState]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Played]:
    """Plays a scenario, each once."""
    return cache(lambda name: play(name, tmp_path_factory.mktemp(name)))


def play(name: str, path: Path) -> Played:
    """Play a scenario without its oracle: rounds with who took part, and where sites and withdrawals are."""
    config = consortium_of(name, load_scenario(name), "tiny")
    quick = config.training.model_copy(update={"local_steps": 1, "evaluate_every": 0})
    assessment = config.assessment.model_copy(update={"oracle": False})
    config = config.model_copy(update={"training": quick, "assessment": assessment})
    directory = RunDirectory(path / name)
    directory.prepare(config)
    nodes = {number: {"partition-id": number - 1} for number in range(1, len(config.sites) + 1)}
    with directory.environment(), StateDirectory.open(directory.state) as state:
        prepare_data(config, lambda *_: None)
        grid = LocalGrid("client.app:app", nodes)
        Coordinator(grid, config, state, simulated=True).run()
        books = Bookkeeping(state)
        rounds = [
            (record.kind, frozenset(s for s, o in record.sites.items() if o.outcome == "ok"))
            for record in books.log.all(MAIN)
        ]
        status = {entry.site: entry.status for entry in books.roster.all()}
        states = [record.state for record in Withdrawals(state).all()]
    grid.close()
    return rounds, status, states


@pytest.mark.parametrize("name", names())
def test_each_scenario_plays_to_its_end(name: str, played: Callable[[str], Played]) -> None:
    """Every withdrawal is completed, and whoever has left is in no round of its own unlearning."""
    rounds, status, states = played(name)
    config = consortium_of(name, load_scenario(name), "tiny")
    assert states == [WithdrawalState.COMPLETED] * len(config.withdrawals)
    retaining = [sites for kind, sites in rounds if kind == "retain"]
    assert retaining and all(not sites & set(config.withdrawals[0].sites) for sites in retaining)
    training = [sites for kind, sites in rounds if kind == "train"]
    assert len(training) == config.training.rounds
    for site in config.sites:
        last = site.last_round or config.training.rounds
        for number, sites in enumerate(training, 1):
            if not site.first_round <= number <= last:
                assert site.name not in sites, f"{site.name} took part in round {number}"
    returned = {site for back in config.returns for site in back.sites}
    gone = {site for withdrawal in config.withdrawals for site in withdrawal.sites} - returned
    assert all(status[site] is SiteStatus.WITHDRAWN for site in gone)
    assert all(status[site] is SiteStatus.ACTIVE and site in training[-1] for site in returned)


def test_late_and_early_sites_take_part_when_they_say(played: Callable[[str], Played]) -> None:
    """The knee hospital is in rounds 4 to 6 if it joins in the fourth, in 1 to 3 if it then stops."""
    late, _, _ = played("joined-late")
    early, _, _ = played("left-early")
    assert ["knee" in sites for kind, sites in late if kind == "train"] == [False] * 3 + [True] * 3
    assert ["knee" in sites for kind, sites in early if kind == "train"] == [True] * 3 + [False] * 3


def test_every_scenario_fits_the_default_consortium() -> None:
    """A scenario that is no consortium at the size it is judged at would be of no use."""
    for name in names():
        assert consortium_of(name, load_scenario(name), "demo").withdrawals


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    """Unknown scenarios, presets and sites are refused by name."""
    with pytest.raises(ConfigError, match="no scenario 'organ-withdrawm'"):
        load_scenario("organ-withdrawm")
    with pytest.raises(ConfigError, match="no preset 'huge'"):
        consortium_of("x", Scenario(title="", about=""), "huge")
    lost = tmp_path / "lost.toml"
    lost.write_text('title = "a"\nabout = "b"\nchange = {}\n')
    with pytest.raises(ConfigError, match="change"):
        load_scenario(str(lost))
    with pytest.raises(ConfigError, match="spleen"):
        consortium_of(
            "x", Scenario(title="", about="", changes={"withdrawals": [{"sites": ["spleen"]}]}), "tiny"
        )


def test_a_check_needs_its_figure_and_every_value_of_it() -> None:
    """A path with a star names every field; nothing found does not pass."""
    table = {"gap": {"a": {"x": 0.1}, "b": {"x": 0.7}}, "list": [1, 2]}
    assert _values(table, ["gap", "*", "x"]) == [0.1, 0.7]
    assert _values(table, ["list", "1"]) == [2.0]
    check = Check(figure="gap.*.x", at_most=0.5, says="small")
    assert not Finding(check, (0.1, 0.7)).passed
    assert Finding(check, (0.1, 0.2)).passed
    assert not Finding(check, ()).passed
