"""Calibration: phantoms in place of data, and gaps of several simulations put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.calibration import CalibrationResult, calibrate, on_phantoms
from cli.results import Results
from reconsent.config import ConsortiumConfig, load_consortium
from reconsent.errors import ConfigError
from tests.cli.results_builder import build_results


def test_phantoms_take_the_place_of_data_and_nothing_else_changes(tmp_path: Path) -> None:
    """Network, training, unlearning and sampling stay; data directories and named patients go."""
    config = load_consortium("tiny")
    sites = tuple(
        site.model_copy(update={"data": tmp_path, "patients": ("a", "b")}) if site.name == "knee" else site
        for site in config.sites
    )
    deployed = config.model_copy(update={"sites": sites})
    simulated = on_phantoms(deployed, ["knee"], seed=5, patients={"knee": 11, "brain": 99})
    assert simulated.site("knee").data is None
    assert simulated.site("knee").patients == ()
    assert simulated.site("knee").phantom.patients == 11
    assert simulated.site("brain").phantom == config.site("brain").phantom
    assert simulated.site("knee").sampling == config.site("knee").sampling
    for part in ("model", "training", "unlearning", "contributions", "compliance"):
        assert getattr(simulated, part) == getattr(config, part)
    assert simulated.seed == 5
    assert simulated.withdrawals[0].sites == ("knee",)
    with pytest.raises(ConfigError, match="no site"):
        on_phantoms(config, ["kne"], seed=0, patients={})


def test_gaps_of_all_simulations_are_put_together(tmp_path: Path) -> None:
    """Each leaver is simulated with each seed; the prediction is over all of them."""
    ran: list[tuple[str, int]] = []

    def simulate(config: ConsortiumConfig) -> Results:
        ran.append((config.withdrawals[0].sites[0], config.seed))
        return build_results("forgets" if config.seed else "remembers")

    found = calibrate(load_consortium("tiny"), [["knee"], ["brain"]], [0, 1], simulate)
    assert ran == [("knee", 0), ("knee", 1), ("brain", 0), ("brain", 1)]
    forgets, remembers = build_results("forgets"), build_results("remembers")
    expected = [r.oracle_gap["cached-ascent"].forget_test for r in (remembers, forgets)] * 2
    assert found.calibration().gaps["forget-test"] == pytest.approx(expected)
    assert found.calibration().predicted("forget-test")[0] == pytest.approx(sum(expected) / 4)
    assert "relearn" in found.calibration().gaps
    found.save(tmp_path / "calibration.json")
    assert CalibrationResult.load(tmp_path / "calibration.json") == found
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ConfigError, match="no calibration"):
        CalibrationResult.load(tmp_path / "broken.json")


def test_a_simulation_without_an_oracle_predicts_nothing() -> None:
    """Without gaps there is no prediction, and the message says why."""
    with pytest.raises(ConfigError, match="no oracle"):
        calibrate(
            load_consortium("tiny"),
            [["knee"]],
            [0],
            lambda _: build_results(oracle_gap={}, original_gap=None),
        )
    with pytest.raises(ConfigError, match="nothing to calibrate"):
        calibrate(load_consortium("tiny"), [], [0], lambda _: build_results())
