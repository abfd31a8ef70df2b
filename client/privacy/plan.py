"""How many steps of which noise a round of DP-SGD takes, known before it begins."""

from __future__ import annotations

import math
from dataclasses import dataclass

from client.privacy.accounting import Mechanism, noise_multiplier_for
from reconsent.config import ConsortiumConfig, TrainingConfig
from reconsent.errors import ConfigError
from reconsent.privacy import PrivacyConfig
from strategies.site_privacy import planned_rounds, site_noise_multiplier


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """What a round spends, on what the consortium's file and the site's headers say.

    Attributes
    ----------
    sample
        Its DP-SGD; ``None`` if it has none.
    site_noise
        Noise multiplier of the whole update; ``None`` if it gets none.
    """

    sample: Mechanism | None
    site_noise: float | None


def plan_round(
    consortium: ConsortiumConfig, privacy: PrivacyConfig, *, slices: int, effort: int
) -> RoundPlan:
    """Plan one round at a site.

    Parameters
    ----------
    consortium
        Its training, and how many rounds it asks for.
    privacy
        Of the site.
    slices
        Training slices of the site. How many there are is not protected, here or anywhere.
    effort
        How many times the configured steps this round takes.

    Raises
    ------
    ConfigError
        If no noise reaches the ε that is asked for.
    """
    sample = site_noise = None
    if privacy.by_sample:
        rate = sample_rate(consortium.training, privacy, slices)
        steps = steps_a_round(consortium.training, rate)
        sigma = privacy.noise_multiplier
        if sigma is None:
            if privacy.target_epsilon is None:
                raise ConfigError("Neither target-epsilon nor noise-multiplier is given.", "Give one.")
            planned = planned_rounds(consortium, privacy) * steps
            sigma = noise_multiplier_for(
                privacy.target_epsilon, privacy.delta, rate, planned, privacy.accountant
            )
        sample = Mechanism(sigma, rate, steps * effort)
    if privacy.by_site:
        site_noise = site_noise_multiplier(consortium, privacy)
    return RoundPlan(sample, site_noise)


def sample_rate(training: TrainingConfig, privacy: PrivacyConfig, slices: int) -> float:
    """Chance of each unit to be in a step; by default a step sees ``batch-size`` slices on average."""
    if privacy.sample_rate is not None:
        return privacy.sample_rate
    return min(1.0, training.batch_size / max(slices, 1))


def steps_a_round(training: TrainingConfig, rate: float) -> int:
    """``local-steps``, or so many that each unit is seen ``local-epochs`` times on average."""
    return training.local_steps or math.ceil(training.local_epochs / rate - 1e-9)
