"""Site-level differential privacy: what a whole site does to a round is clipped and noised.

Two sets of updates are neighbours if they differ in that one site's update is there or is zero. The sites'
numbers of examples, by which updates are weighted, are public.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from reconsent.config import ConsortiumConfig
from reconsent.errors import ConfigError
from reconsent.files import sha256_of
from reconsent.privacy import PrivacyConfig
from reconsent.seeds import derive_seed
from strategies.gaussian_mechanism import clipped, noise_multiplier_for, noised
from strategies.noise import NoiseSource, noise_source
from strategies.screening import Screened
from unlearning.parameters import Vector, norm


@dataclass(frozen=True, slots=True)
class ServerNoise:
    """Clipping and noise at the server (McMahan et al., ICLR 2018, with weights and a fixed clip).

    The sites must trust the server: it sees every update without noise, and so does its cache.

    Attributes
    ----------
    clip
        C, largest norm of an update.
    noise_multiplier
        σ.
    source
        Gives the noise of a round, by the round's number and a digest of the mean: two releases never share
        theirs.
    """

    clip: float
    noise_multiplier: float
    source: Callable[[int, str], NoiseSource]

    def screened(self, screened: Screened) -> Screened:
        """The same with an update no longer than C."""
        update = clipped(screened.update, self.clip)
        return replace(screened, update=update, norm=norm(update))

    def noised(self, server_round: int, mean: Vector, weights: Mapping[str, float]) -> Vector:
        """The averaged update ``(P,)`` with noise of deviation σ C max p: no site moves the mean by more."""
        deviation = self.noise_multiplier * self.clip * max(weights.values())
        return noised(mean, deviation, self.source(server_round, sha256_of(mean.tobytes())))


def server_noise(consortium: ConsortiumConfig, *, simulated: bool) -> ServerNoise | None:
    """Clipping and noise as the consortium's file asks of the server; ``None`` if it asks for none.

    In a simulation the noise comes from the consortium's seed and the round, so that it can be repeated.
    """
    privacy = consortium.privacy
    if not privacy.by_site or privacy.noise_at != "server":
        return None

    def source(server_round: int, start: str) -> NoiseSource:
        seed = derive_seed(consortium.seed, "privacy", "server", server_round, start) if simulated else None
        return noise_source(seed)

    return ServerNoise(privacy.site_clip, site_noise_multiplier(consortium, privacy), source)


def noised_at_site(consortium: ConsortiumConfig) -> dict[str, PrivacyConfig]:
    """The privacy of each site that adds noise to its whole update itself: its norm is that of the noise."""
    tables = {site.name: consortium.privacy_of(site) for site in consortium.sites}
    return {name: own for name, own in tables.items() if own.by_site and own.noise_at == "site"}


def planned_rounds(consortium: ConsortiumConfig, privacy: PrivacyConfig) -> int:
    """Rounds of training and unlearning that the consortium's file asks for, in rounds of plain effort.

    Where nobody is written down to leave, one unlearning at the end is allowed for.
    """
    if privacy.planned_rounds is not None:
        return privacy.planned_rounds
    rounds = consortium.training.rounds
    ends = [withdrawal.at_round or rounds for withdrawal in consortium.withdrawals] or [rounds]
    effort = max(1, int(consortium.unlearning.settings.get("effort", 1)))
    unlearning = sum(max(1, int(consortium.unlearning.rounds_fraction * end)) for end in ends)
    return rounds + consortium.continue_rounds + unlearning * effort


def site_noise_multiplier(consortium: ConsortiumConfig, privacy: PrivacyConfig) -> float:
    """Noise multiplier σ of a whole update.

    Raises
    ------
    ConfigError
        If no noise reaches the ε that is asked for.
    """
    if privacy.site_noise_multiplier is not None:
        return privacy.site_noise_multiplier
    if privacy.site_target_epsilon is None:
        raise ConfigError("Neither site-target-epsilon nor site-noise-multiplier is given.", "Give one.")
    rounds = planned_rounds(consortium, privacy)
    return noise_multiplier_for(privacy.site_target_epsilon, privacy.delta, rounds)
