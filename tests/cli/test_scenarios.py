"""Every scenario, played at the smallest size by the real server and sites."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cli.consortium_data import prepare_data
from cli.gathering import _standing
from cli.run_directory import RunDirectory
from cli.scenarios.catalogue import Check, Scenario, consortium_of, load_scenario, names
from cli.scenarios.judging import Finding, _values, judge_table, steps_of
from reconsent.errors import ConfigError
from server.bookkeeping import MAIN, Bookkeeping
from server.coordinator import Coordinator
from server.persistence import SiteStatus, StateDirectory, Withdrawals
from strategies.local_grid import LocalGrid
from strategies.methods import check_plan
from tests.cli.results_builder import build_results
from unlearning.withdrawal import WithdrawalState

NOTHING_TO_FORGET = {"same-organ", "two-in-a-row", "under-privacy", "readmitted"}
"""Scenarios in which the original model is no control; each file says why."""

Rounds = list[tuple[str, frozenset[str]]]
Played = tuple[Rounds, dict[str, SiteStatus], list[WithdrawalState], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Played]:
    """Plays a scenario, each once."""
    return cache(lambda name: play(name, tmp_path_factory.mktemp(name)))


def play(name: str, path: Path) -> Played:
    """Play a scenario without its oracle: rounds with who took part, and where all is at the end."""
    config = consortium_of(name, load_scenario(name), "tiny")
    changes = {
        "training": config.training.model_copy(update={"local_steps": 1, "evaluate_every": 0}),
        "assessment": config.assessment.model_copy(update={"oracle": False}),
        # Nobody looks at the images.
        "model": config.model.model_copy(update={"channels": 2, "pools": 1, "sensitivity_pools": 1}),
        "sites": tuple(
            site.model_copy(
                update={"phantom": site.phantom.model_copy(update={"slices": 1, "matrix": (32, 32)})}
            )
            for site in config.sites
        ),
    }
    config = config.model_copy(update=changes)
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
        sites = [{"name": site.name, **_standing(state, books, site.name)} for site in config.sites]
    grid.close()
    return rounds, status, states, sites


@pytest.mark.parametrize("name", names())
def test_each_scenario_plays_to_its_end(name: str, played: Callable[[str], Played]) -> None:
    """Every withdrawal is completed, and whoever has left is in no round of its own unlearning."""
    rounds, status, states, _ = played(name)
    config = consortium_of(name, load_scenario(name), "tiny")
    assert states == [WithdrawalState.COMPLETED] * len(config.withdrawals)
    retaining = [sites for kind, sites in rounds if kind == "retain"]
    gone = set() if config.withdrawals[0].patients else set(config.withdrawals[0].sites)
    assert retaining and all(not sites & gone for sites in retaining)
    training = [sites for kind, sites in rounds if kind == "train"]
    assert len(training) == config.training.rounds
    for site in config.sites:
        last = site.last_round or config.training.rounds
        for number, sites in enumerate(training, 1):
            if not site.first_round <= number <= last:
                assert site.name not in sites, f"{site.name} took part in round {number}"
    returned = {site for back in config.returns for site in back.sites}
    gone = set(config.leavers()) - returned
    assert all(status[site] is SiteStatus.WITHDRAWN for site in gone)
    assert all(status[site] is SiteStatus.ACTIVE and site in training[-1] for site in returned)


def test_late_and_early_sites_take_part_when_they_say(played: Callable[[str], Played]) -> None:
    """The knee hospital is in rounds 4 to 6 if it joins in the fourth, in 1 to 3 if it then stops."""
    late, *_ = played("joined-late")
    early, *_ = played("left-early")
    assert ["knee" in sites for kind, sites in late if kind == "train"] == [False] * 3 + [True] * 3
    assert ["knee" in sites for kind, sites in early if kind == "train"] == [True] * 3 + [False] * 3


def test_a_readmitted_site_is_a_newcomer(played: Callable[[str], Played]) -> None:
    """Its checks pass with the round of the small consortium, and fail a site that never left."""
    *_, sites = played("readmitted")
    scenario = load_scenario("readmitted")
    returned = consortium_of("readmitted", scenario, "tiny").returns[0].after_round
    checks = [
        check if check.control is None else check.model_copy(update={"at_least": returned + 1})
        for check in scenario.checks
    ]
    assert [finding.verdict for finding in judge_table({"sites": sites}, checks)] == ["passed"] * 3
    stayed = [site | {"name": "knee" if site["name"] == "abdomen" else "abdomen"} for site in sites]
    verdicts = [finding.verdict for finding in judge_table({"sites": stayed}, checks)]
    assert verdicts == ["passed", "failed", "failed"]


@pytest.mark.parametrize("name", names())
def test_a_scenario_fails_the_model_that_nothing_was_done_to(name: str) -> None:
    """With G in place of G_U every check of forgetting fails; where G is as the oracle, none notices."""
    checks = [c for c in load_scenario(name).checks if c.control and "original" in c.control]
    assert checks or name in NOTHING_TO_FORGET
    good = build_results("forgets").model_dump(mode="json")
    good["evidence"] = {
        "hallucination": [
            {"model": model, "set": "retain_test", "false_structure": value}
            for model, value in (("original", 0.09), ("unlearned", 0.04), ("oracle", 0.03))
        ]
    }
    wide = [
        c.model_copy(update={"at_least": -0.9, "at_most": 0.9}) if "relearn" in c.figure else c
        for c in checks
    ]
    assert {finding.verdict for finding in judge_table(good, wide)} <= {"passed"}
    assert {finding.verdict for finding in judge_table(put(good, "unlearned", "original"), checks)} <= {
        "failed"
    }
    same = put(put(good, "unlearned", "oracle"), "original", "oracle")
    assert {finding.verdict for finding in judge_table(same, checks)} <= {"could not have noticed"}
    lost = put(good, "unlearned", "oracle") | {
        "original_gap": None,
        "relearn": {"unlearned": {}, "oracle": {}},
    }
    lost["evidence"] = {"hallucination": lost["evidence"]["hallucination"][1:]}
    assert not any(finding.passed for finding in judge_table(lost, checks))


def put(table: dict[str, Any], model: str, other: str) -> dict[str, Any]:
    """The results as they would be were ``model`` the model ``other``."""
    table = copy.deepcopy(table)
    gaps = {"original": table["original_gap"], "oracle": dict.fromkeys(table["original_gap"], 0.0)}
    if model == "original":
        table["original_gap"] = gaps[other]
    else:
        table["oracle_gap"] = dict.fromkeys(table["oracle_gap"], gaps[other])
    table["relearn"][model] = table["relearn"][other]
    rows = table["evidence"]["hallucination"]
    value = next(row["false_structure"] for row in rows if row["model"] == other)
    for row in rows:
        if row["model"] == model:
            row["false_structure"] = value
    return table


def test_every_scenario_fits_the_default_consortium() -> None:
    """A scenario whose consortium or method does not fit the size it is judged at would be of no use."""
    for name in names():
        for preset in ("demo", "tiny"):
            config = consortium_of(name, load_scenario(name), preset)
            assert config.withdrawals
            check_plan(config)


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
    for path in ("", "gap..x", "rows[m].v", "rows[m=a", "rows.[m=a]"):
        with pytest.raises(ValueError, match="is no path"):
            Check(figure=path, says="")


def test_a_check_needs_its_figure_and_every_value_of_it() -> None:
    """A path with a star names every field; nothing found does not pass."""
    table = {"gap": {"a": {"x": 0.1}, "b": {"x": 0.7}}, "list": [1, 2]}
    assert _values(table, steps_of("gap.*.x")) == [0.1, 0.7]
    assert _values(table, steps_of("list.1")) == [2.0]
    rows = {
        "rows": [
            {"m": "a", "set": "x", "v": 1.5},
            {"m": "a", "set": "y", "v": 2},
            {"m": "b", "set": "x", "v": 4},
        ]
    }
    assert _values(rows, steps_of("rows[m=a].v")) == [1.5, 2.0]
    assert _values(rows, steps_of("rows[m=b,set=x].v")) == [4.0]
    less = Check(figure="rows[m=a].v", minus="rows[m=b].v", at_most=9, says="")
    assert judge_table(rows, [less])[0].values == ()
    check = Check(figure="gap.*.x", at_most=0.5, says="small")
    assert not Finding(check, (0.1, 0.7)).passed
    assert Finding(check, (0.1, 0.2)).passed
    assert not Finding(check, ()).passed
