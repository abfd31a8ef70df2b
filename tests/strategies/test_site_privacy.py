"""Site-level differential privacy at the server: the bound, the noise, the plan, and what it excludes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from reconsent.config import ConsortiumConfig
from reconsent.errors import ContributionError
from reconsent.privacy import PrivacyConfig
from strategies import ContributionAveraging
from strategies import messages as msg
from strategies.gaussian_mechanism import epsilon_of
from strategies.local_grid import LocalGrid
from strategies.noise import SeededNoise
from strategies.screening import Screened
from strategies.site_privacy import (
    ServerNoise,
    noised_at_site,
    planned_rounds,
    server_noise,
    site_noise_multiplier,
)
from tests.linear_app import model, quadratic_app
from tests.server.hospitals import consortium, opened
from unlearning.parameters import norm

CLIP = 0.5
AT_SERVER = {
    "mode": "site",
    "site-noise-multiplier": 2.0,
    "site-ceiling": 100.0,
    "site-clip": CLIP,
    "noise-at": "server",
}
WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}


def at_server(**changes: Any) -> ConsortiumConfig:
    """The quadratic hospitals with noise at the server."""
    return consortium(privacy={**AT_SERVER, **changes})


def noise(*, simulated: bool = True) -> ServerNoise:
    """Of that consortium."""
    found = server_noise(at_server(), simulated=simulated)
    assert found is not None
    return found


@pytest.mark.parametrize("size", [0.1, 0.5, 7.0, 1e6])
def test_no_update_is_longer_than_the_clip(size: float) -> None:
    """Of whatever a site sends no more than C is averaged; a short update is left as it is."""
    rng = np.random.default_rng(0)
    update = rng.standard_normal(1000).astype(np.float32)
    update *= np.float32(size / norm(update))
    kept = noise().screened(Screened(update=update, examples=3, norm=size))
    assert kept.norm == pytest.approx(norm(kept.update))
    assert kept.norm <= CLIP
    assert kept.norm == pytest.approx(min(size, CLIP), rel=1e-5)
    assert float(kept.update @ update) == pytest.approx(kept.norm * norm(update), rel=1e-4), (
        "the same direction"
    )


class Silence:
    """A source without noise, which keeps what was asked of it."""

    def __init__(self) -> None:
        self.deviations: list[float] = []

    def normal(self, size: int, deviation: float) -> npt.NDArray[np.float32]:
        """Zeros."""
        self.deviations.append(deviation)
        return np.zeros(size, np.float32)

    def uniform(self, size: int) -> npt.NDArray[np.float64]:
        """Nothing is drawn at random here but noise."""
        raise AssertionError(f"no subsampling of {size} was asked for")


def test_no_site_moves_the_mean_beyond_what_the_noise_is_for() -> None:
    """A real round with a site's update, far beyond C, and with zeros: means differ by max p · C at most.

    And the noise of that round, here silenced, is of σ times that.
    """
    rng = np.random.default_rng(1)
    far = {node: 90 * rng.standard_normal(50) for node in (1, 2, 3)}
    examples = dict(zip(far, (5, 3, 2), strict=True))
    silence = Silence()

    def mean(centres: dict[int, np.ndarray]) -> np.ndarray:
        """The model after one round from zero: a site whose centre is there sends zeros."""
        grid = LocalGrid(quadratic_app(centres), {n: {"examples": e} for n, e in examples.items()})
        strategy = ContributionAveraging(site_noise=ServerNoise(CLIP, 2.0, lambda *_: silence))
        result = strategy.start(grid, model(np.zeros(50)), num_rounds=1)
        return msg.named_arrays(result.arrays)["theta"]

    everybody = mean(far)
    for gone, weight in zip(far, WEIGHTS.values(), strict=True):
        moved = norm(everybody - mean({**far, gone: np.zeros(50)}))
        assert moved == pytest.approx(weight * CLIP, rel=1e-4), "each is clipped, and weighs what it should"
        assert moved <= max(WEIGHTS.values()) * CLIP * (1 + 1e-4)
    assert silence.deviations == pytest.approx([2.0 * CLIP * max(WEIGHTS.values())] * 4)


def test_noise_of_the_mean_has_the_deviation_of_the_account() -> None:
    """σ C max p in every coordinate: the multiplier σ of which ε is computed, over the sensitivity."""
    mean = np.zeros(200_000, np.float32)
    released = noise().noised(3, mean, WEIGHTS)
    assert float(released.std()) == pytest.approx(2.0 * CLIP * 0.5, rel=0.01)


def test_noise_repeats_in_a_simulation_only() -> None:
    """The same round and mean have the same noise, others another; a real round never the same twice."""
    mean = np.ones(20, np.float32)
    simulated, real = noise(), noise(simulated=False)
    first = simulated.noised(3, mean, WEIGHTS)
    assert np.array_equal(first, simulated.noised(3, mean, WEIGHTS))
    assert not np.allclose(first - mean, simulated.noised(3, 2 * mean, WEIGHTS) - 2 * mean)
    assert not np.allclose(first, simulated.noised(4, mean, WEIGHTS))
    assert not np.allclose(real.noised(3, mean, WEIGHTS), real.noised(3, mean, WEIGHTS))


def test_the_model_of_a_round_is_the_clipped_mean_and_its_noise(tmp_path: Path) -> None:
    """In a real run the noise is in the model that is registered, of the size that it should have."""
    thetas = []
    for number, changes in enumerate(({}, {"site-noise-multiplier": 1e-6})):
        with opened(tmp_path / str(number), at_server(**changes)) as run:
            run.coordinator.meet()
            run.coordinator.initialise()
            start = run.theta()
            run.coordinator.train(1)
            thetas.append(run.theta())
    noisy, quiet = thetas
    assert norm(quiet - start) <= CLIP, "no mean of clipped updates is longer"
    deviation = 2.0 * CLIP * 0.4  # The largest of four sites of 1, 2, 3 and 4 examples.
    assert norm(noisy - quiet) == pytest.approx(deviation * math.sqrt(noisy.size), rel=0.5)


def test_nothing_is_cached_without_its_noise(tmp_path: Path) -> None:
    """With noise at the server no contribution is kept; a method that needs one says so, others go on."""
    with opened(tmp_path, at_server()) as run:
        coordinator = run.coordinator
        coordinator.meet()
        coordinator.initialise()
        coordinator.train(2)
        assert coordinator.cache.sites() == []
        strategy = coordinator.method(frozenset({"delta"}), 2, "cached-ascent", {})
        with pytest.raises(ContributionError, match="none is kept"):
            strategy.begin(
                coordinator.grid, coordinator.books.arrays(coordinator.books.version("main", "train"))
            )
        coordinator.method(frozenset({"delta"}), 2, "retain-ft", {})


def test_epsilon_asked_for_is_that_of_all_planned_rounds() -> None:
    """Noise for ε after all planned rounds, unlearning included, gives just that ε by exact composition."""
    config = at_server(**{"site-noise-multiplier": None, "site-target-epsilon": 8.0})
    rounds = planned_rounds(config, config.privacy)
    assert rounds == 6 + 2, "six of training, a third of them for one unlearning"
    sigma = site_noise_multiplier(config, config.privacy)
    assert epsilon_of([sigma] * rounds, 1e-5) == pytest.approx(8.0, abs=1e-4)
    assert epsilon_of([sigma] * rounds, 1e-5) <= 8.0
    assert epsilon_of([sigma] * (rounds + 1), 1e-5) > 8.0


def test_sites_with_noise_of_their_own_are_told_from_the_others() -> None:
    """Only noise that a site adds to its whole update sets its norm apart; DP-SGD and a server's do not."""
    table = consortium().model_dump(mode="json", by_alias=True, exclude_none=True)
    table["privacy"] = {"mode": "sample", "target-epsilon": 8.0}
    by_site = {**AT_SERVER, "noise-at": "site"}
    for site in table["sites"][:2]:
        site["privacy"] = by_site
    found = noised_at_site(ConsortiumConfig.model_validate(table))
    own = PrivacyConfig.model_validate(by_site)
    assert found == dict.fromkeys([site["name"] for site in table["sites"][:2]], own)
    assert noised_at_site(at_server()) == {}


def test_noise_of_single_sites_and_of_the_server_do_not_mix() -> None:
    """A site cannot have another privacy than the rest where the server adds the noise for all."""
    table = at_server().model_dump(mode="json", by_alias=True, exclude_none=True)
    table["sites"][0]["privacy"] = {"mode": "none"}
    with pytest.raises(ValidationError, match="noise at the server is for all"):
        ConsortiumConfig.model_validate(table)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"mode": "sample"}, "target-epsilon or noise-multiplier"),
        ({"mode": "site"}, "site-target-epsilon or site-noise-multiplier"),
        ({"mode": "both", "target-epsilon": 3.0}, "site-target-epsilon or site-noise-multiplier"),
        ({"mode": "sample", "target-epsilon": 3.0, "noise-multiplier": 1.0}, "needs either"),
        ({"mode": "sample", "noise-multiplier": 1.0}, "ceiling says when a site stops"),
    ],
)
def test_half_a_privacy_is_refused(table: dict[str, Any], words: str) -> None:
    """A table from which no noise or no end follows is refused, and it is said what is missing."""
    with pytest.raises(ValidationError, match=words):
        PrivacyConfig.model_validate(table)


def test_seeded_noise_is_gaussian() -> None:
    """The noise of simulations has the deviation it is asked for, too."""
    values = SeededNoise(1).normal(100_000, 2.5).astype(np.float64)
    assert float(values.std()) == pytest.approx(2.5, rel=0.02)
    assert abs(float(values.mean())) < 0.05
