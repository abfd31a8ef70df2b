"""Flower strategies that keep contributions and take a withdrawn site's out again; any model works."""

from strategies.averaging import ContributionAveraging
from strategies.cached_ascent import CachedAscent, CachedAscentSettings
from strategies.methods import METHODS, build_method
from strategies.outcomes import RoundOutcome, SiteOutcome
from strategies.retain_fine_tuning import RetainFineTuning, RetainFineTuningSettings
from strategies.retraining import Retraining, RetrainingSettings
from strategies.screening import UpdateScreen
from strategies.unlearning_strategy import Departure, UnlearningStrategy

__all__ = [
    "METHODS",
    "CachedAscent",
    "CachedAscentSettings",
    "ContributionAveraging",
    "Departure",
    "RetainFineTuning",
    "RetainFineTuningSettings",
    "Retraining",
    "RetrainingSettings",
    "RoundOutcome",
    "SiteOutcome",
    "UnlearningStrategy",
    "UpdateScreen",
    "build_method",
]
