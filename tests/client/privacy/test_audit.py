"""An attack on the real training: what it can tell of a canary lies below the ε that is claimed.

The strongest adversary that differential privacy knows: it chooses the canary, has everybody else's data,
sees the model before and after, and guesses whether the canary was there (Jagielski, Ullman & Oprea,
NeurIPS 2020; Nasr et al., S&P 2021). Its successes bound ε from below, with 95 % confidence. So a fault that
an account of noise multipliers would never show, such as noise that is too small, is found.
"""

from __future__ import annotations

import copy
import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import beta

from client.privacy.accounting import Mechanism, epsilon_spent
from client.privacy.gradients import unit_gradient
from client.privacy.training import train_privately
from mri.dataset import SiteDataset
from mri.phantoms import synthesise_volume
from mri.reconstructors import Reconstructor, build_reconstructor
from reconsent.config import PhantomConfig, ReconstructorConfig, SamplingConfig, TrainingConfig
from reconsent.privacy import PrivacyConfig
from strategies.noise import SecureNoise, SeededNoise

DELTA = 1e-3
LITTLE = Mechanism(noise_multiplier=0.5, sample_rate=1.0, steps=1)
"""So little that the adversary can prove something in few trials, though never as much as is claimed."""
MUCH = Mechanism(noise_multiplier=2.5, sample_rate=1.0, steps=1)
"""So much that few trials could prove more than is claimed, if there were less of it."""
PRIVACY = PrivacyConfig.model_validate(
    {"mode": "sample", "noise-multiplier": 1.0, "ceiling": 99.0, "max-grad-norm": 1e-3, "delta": DELTA}
)
TRIALS = 100
"""With the canary, and as many without; half of them choose the threshold, half are judged by it."""
ENOUGH = 50
"""Under much noise: so many could prove more than is claimed."""


@lru_cache
def start() -> Reconstructor:
    """The model that is sent to the site; it stays as it is."""
    return build_reconstructor(ReconstructorConfig(name="unet", channels=2, pools=1), seed=3)


@lru_cache
def site(patients: int) -> SiteDataset:
    """A site of so many patients of one slice; the last of two is the canary."""
    phantom = PhantomConfig(matrix=(32, 32), coils=1, slices=1)
    volumes = [
        synthesise_volume(("brain", "knee")[n], phantom, seed=n, name=f"p-{n}") for n in range(patients)
    ]
    return SiteDataset.from_volumes(
        volumes, SamplingConfig(acceleration=4, center_fraction=0.15), seed=1, fresh_masks=False
    )


class TooLittle(SeededNoise):
    """A fault: a tenth of the noise that is accounted for."""

    def normal(self, size: int, deviation: float) -> npt.NDArray[np.float32]:
        """Too small by a factor of ten."""
        return super().normal(size, deviation / 10)


def scores(patients: int, claimed: Mechanism, *, fault: bool = False) -> npt.NDArray[np.float64]:
    """What the adversary sees of each training: how far the model went the canary's way."""
    data = site(2)
    canary = unit_gradient(start(), list(data.batches_of(data.units("patient")[1], 1)), 0.0)
    way = torch.cat([-gradient.ravel() for gradient in canary])
    before = torch.cat([p.detach().ravel() for p in start().parameters()])
    found = []
    for trial in range(TRIALS if claimed is LITTLE else ENOUGH):
        model = copy.deepcopy(start())
        seed = 1000 * patients + trial
        train_privately(
            model,
            site(patients),
            TrainingConfig(batch_size=1, l1_weight=0.0),
            PRIVACY,
            claimed,
            learning_rate=1e-3,
            seed=0,
            source=TooLittle(seed) if fault else SeededNoise(seed),
        )
        moved = torch.cat([p.detach().ravel() for p in model.parameters()]) - before
        found.append(float(moved @ way))
    return np.array(found)


def lower_bound(with_it: npt.NDArray[np.float64], without: npt.NDArray[np.float64]) -> float:
    """ε proven with 95 % confidence: ln((TPR − δ)/FPR), each rate by Clopper and Pearson at 97.5 %."""
    half = len(with_it) // 2

    def bound(threshold: float, a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
        hits, alarms = int((a > threshold).sum()), int((b > threshold).sum())
        true = float(beta.ppf(0.025, hits, len(a) - hits + 1)) if hits else 0.0
        false = float(beta.ppf(0.975, alarms + 1, len(b) - alarms)) if alarms < len(b) else 1.0
        return math.log((true - DELTA) / false) if true > DELTA else -math.inf

    candidates = np.concatenate([with_it[:half], without[:half]])
    best = max(candidates, key=lambda t: bound(t, with_it[:half], without[:half]))
    return bound(float(best), with_it[half:], without[half:])


def test_canary_is_found_where_there_is_little_noise() -> None:
    """The adversary learns something of the canary: it is one that more noise must stop."""
    proven = lower_bound(scores(2, LITTLE), scores(1, LITTLE))
    assert 0 < proven < epsilon_spent([LITTLE], DELTA)


def test_canary_proves_less_than_is_claimed() -> None:
    """With much noise less is proven than is claimed, though as many trials without any would prove more."""
    claimed = epsilon_spent([MUCH], DELTA)
    assert lower_bound(scores(2, MUCH), scores(1, MUCH)) < claimed
    assert lower_bound(np.ones(ENOUGH), np.zeros(ENOUGH)) > claimed


def test_the_audit_finds_noise_that_is_too_small() -> None:
    """With a tenth of the noise, which no account would show, more is proven than is claimed."""
    claimed = epsilon_spent([MUCH], DELTA)
    proven = lower_bound(scores(2, MUCH, fault=True), scores(1, MUCH, fault=True))
    assert proven > claimed


def test_noise_of_a_deployment_is_gaussian_of_the_right_size() -> None:
    """The operating system's noise has the moments and the tails it should; two draws share nothing."""
    first, second = (SecureNoise().normal(200_000, 3.0).astype(np.float64) for _ in range(2))
    assert abs(first.mean()) < 6 * 3.0 / math.sqrt(200_000)
    assert abs(first.std() / 3.0 - 1) < 6 / math.sqrt(2 * 200_000)
    assert abs((np.abs(first) > 6.0).mean() / 0.0455 - 1) < 0.1
    assert abs(float(np.corrcoef(first, second)[0, 1])) < 6 / math.sqrt(200_000)
    uniform = SecureNoise().uniform(200_000)
    assert 0 <= uniform.min() < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 6 / math.sqrt(12 * 200_000)
