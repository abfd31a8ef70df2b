"""Every method of unlearning by its name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from reconsent.config import ConsortiumConfig, ContributionConfig, Settings
from reconsent.errors import ConfigError
from strategies.cached_ascent import CachedAscent
from strategies.fast_fedul import FastFedUL
from strategies.federaser import FedEraser
from strategies.full_fine_tuning import FullFineTuning
from strategies.gradient_ascent import GradientAscent
from strategies.gradient_ascent_ft import GradientAscentFineTuning
from strategies.momentum_fine_tuning import MomentumFineTuning
from strategies.noisy_labels import NoisyLabels
from strategies.noisy_labels_ft import NoisyLabelsFineTuning
from strategies.pga import ProjectedAscent
from strategies.projected_ascent import CachedProjectedAscent
from strategies.rapid_retraining import RapidRetraining
from strategies.retain_fine_tuning import RetainFineTuning
from strategies.retraining import Retraining
from strategies.rollback import Rollback
from strategies.subtract_distil import SubtractDistil
from strategies.unlearning_strategy import Departure, UnlearningStrategy
from strategies.weight_negation import WeightNegation

METHODS: dict[str, type[UnlearningStrategy]] = {
    method.name: method
    for method in (
        CachedAscent,
        RetainFineTuning,
        FullFineTuning,
        MomentumFineTuning,
        Retraining,
        RapidRetraining,
        Rollback,
        FedEraser,
        SubtractDistil,
        CachedProjectedAscent,
        FastFedUL,
        WeightNegation,
        ProjectedAscent,
        GradientAscent,
        NoisyLabels,
        GradientAscentFineTuning,
        NoisyLabelsFineTuning,
    )
}


def method_settings(name: str, settings: Mapping[str, object]) -> Settings:
    """Check ``settings`` against the method's own.

    Raises
    ------
    ConfigError
        If there is no such method, or a setting is unknown or out of range.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Methods are: {', '.join(METHODS)}."
        raise ConfigError(f"There is no method of unlearning called '{name}'.", hint)
    kind = METHODS[name].settings_type
    # TOML and command lines have no null: an optional setting is left out by an empty string.
    given = {key: None if value == "" else value for key, value in settings.items()}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        known = [field.alias or key for key, field in kind.model_fields.items()]
        lines = []
        for item in error.errors():
            key = ".".join(map(str, item["loc"]))
            near = difflib.get_close_matches(key, known, n=1)
            if not key:
                lines.append(item["msg"])
            elif item["type"] == "extra_forbidden":
                lines.append(f"unknown setting '{key}'" + (f"; did you mean '{near[0]}'?" if near else ""))
            else:
                lines.append(f"{key}: {item['msg']} (got {item.get('input')!r})")
        raise ConfigError(
            f"The settings of {name} are wrong: {'; '.join(lines)}.",
            f"Its settings are: {', '.join(known) or 'none'}.",
        ) from None


def check_method(
    name: str,
    settings: Mapping[str, object],
    kept: ContributionConfig,
    *,
    cooperating: bool = False,
    patients: bool = False,
) -> None:
    """Refuse a method that what a consortium keeps cannot serve, before anything is trained.

    Parameters
    ----------
    name, settings
        The method.
    kept
        What of the contributions is kept.
    cooperating
        Whether the sites that will leave still answer.
    patients
        Whether only patients leave, and their site stays.

    Raises
    ------
    ConfigError
        As :func:`method_settings`; or if the method needs a history, anchors, or the leaving sites.
    """
    checked = method_settings(name, settings)
    problems = METHODS[name].needs(checked).missing_in_plan(kept, cooperating=cooperating, patients=patients)
    if problems:
        said = " ".join(problems)
        raise ConfigError(f"The method '{name}' cannot be used as things are configured. {said}")


def check_plan(consortium: ConsortiumConfig) -> None:
    """Refuse a consortium file whose method cannot carry out its own withdrawals.

    Raises
    ------
    ConfigError
        As :func:`check_method`; of the settings also if nobody withdraws.
    """
    unlearning = consortium.unlearning
    method_settings(unlearning.method, unlearning.settings)
    for planned in consortium.withdrawals:
        check_method(
            unlearning.method,
            unlearning.settings,
            consortium.contributions,
            cooperating=planned.answering,
            patients=bool(planned.patients),
        )


def build_method(
    name: str, settings: Mapping[str, object], departure: Departure, **kwargs: Any
) -> UnlearningStrategy:
    """The strategy called ``name``; ``kwargs`` as for ContributionAveraging.

    Raises
    ------
    ConfigError
        As :func:`method_settings`.
    """
    checked = method_settings(name, settings)
    return METHODS[name](departure, checked, **kwargs)
