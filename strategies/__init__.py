"""Flower strategies that keep contributions and take a withdrawn site's out again; any model works."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strategies.averaging import ContributionAveraging
    from strategies.cached_ascent import CachedAscent
    from strategies.cached_ascent_settings import CachedAscentSettings
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

# Over gRPC a site runs one process a message and needs ``strategies.messages`` alone: the strategies, which
# bring torch and SQLAlchemy, are imported when they are first asked for.
_MODULES = {
    "METHODS": "methods",
    "CachedAscent": "cached_ascent",
    "CachedAscentSettings": "cached_ascent_settings",
    "ContributionAveraging": "averaging",
    "Departure": "unlearning_strategy",
    "RetainFineTuning": "retain_fine_tuning",
    "RetainFineTuningSettings": "retain_fine_tuning",
    "Retraining": "retraining",
    "RetrainingSettings": "retraining",
    "RoundOutcome": "outcomes",
    "SiteOutcome": "outcomes",
    "UnlearningStrategy": "unlearning_strategy",
    "UpdateScreen": "screening",
    "build_method": "methods",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'strategies' has no attribute '{name}'")
    return getattr(import_module(f"strategies.{_MODULES[name]}"), name)
