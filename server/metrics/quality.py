"""Metrics of image quality at the sites, and of what an unlearning cost the remaining ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconsent.exposition import Metric, Samples, Topic
from strategies import messages as msg

PSNR = Metric(
    "reconsent_evaluation_psnr_decibels",
    "gauge",
    "Mean PSNR of the model on a site's test patients, as the site measured it last",
    ("site", "organ"),
    "for active sites, once it was measured",
)
SSIM = Metric(
    "reconsent_evaluation_ssim_ratio",
    "gauge",
    "Mean SSIM of the model on a site's test patients, as the site measured it last",
    ("site", "organ"),
    "as above",
)
NMSE = Metric(
    "reconsent_evaluation_nmse_ratio",
    "gauge",
    "Mean normalised squared error of the model on a site's test patients, as the site measured it last",
    ("site", "organ"),
    "as above",
)
MEASURED = Metric(
    "reconsent_evaluation_timestamp_seconds",
    "gauge",
    "When what a site measured of the model last was committed, in seconds since 1970",
    ("site",),
    "as above",
)
RETAIN = Metric(
    "reconsent_unlearning_psnr_decibels",
    "gauge",
    "Mean PSNR at a remaining site, last measured before the newest unlearning, and last measured since; not "
    "of one that was cancelled, once another round was done",
    ("site", "organ", "model"),
    "once there was an unlearning, for sites that measured both before it and since",
)

TOPIC = Topic("Image quality", (PSNR, SSIM, NMSE, MEASURED, RETAIN))

_MEASURES = ((PSNR, msg.PSNR), (SSIM, msg.SSIM), (NMSE, msg.NMSE))


@dataclass(frozen=True, slots=True)
class Unlearnt:
    """PSNR at each site, of the model before an unlearning and of what came of it."""

    before: Mapping[str, float] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Quality:
    """Follows what the sites measured, round by round."""

    _newest: dict[str, Mapping[str, float]] = field(default_factory=dict)
    _at: dict[str, float] = field(default_factory=dict)
    _psnr: dict[str, float] = field(default_factory=dict)
    """Of the model that the rounds stand at: not of one that a cancelled unlearning came to."""
    _unlearning: Unlearnt | None = None
    _former: Unlearnt | None = None
    _phase: str = "train"
    _ended: int = 0

    def take(
        self, phase: str, at: float, metrics: Mapping[str, Any], *, ended: int, goes_on: bool = True
    ) -> None:
        """Take up one round's record: first what was measured of the model it began with, then of its end.

        Parameters
        ----------
        phase, at, metrics
            Of the round.
        ended
            How many unlearnings had come to their end before it: one may follow another at once.
        goes_on
            Whether it began with the model of the round before it; else another unlearning begins.
        """
        same = phase == self._phase and ended == self._ended and goes_on
        if self._phase == "unlearn" and not same and ended == self._ended and self._unlearning is not None:
            # The last one never came to its end: the model is again the one before it.
            self._psnr = dict(self._unlearning.before)
            self._unlearning = self._former
        self._measured(metrics.get("incoming", {}), at)
        if phase == "unlearn" and not same:
            self._unlearning, self._former = Unlearnt(dict(self._psnr)), self._unlearning
        self._phase, self._ended = phase, ended
        if metrics.get("accepted", True):
            self._measured(metrics.get("evaluation", {}), at)

    def collect(self, samples: Samples, organs: Mapping[str, str], remaining: frozenset[str]) -> None:
        """Fill in this topic's metrics, for ``remaining`` sites only."""
        for site in sorted(remaining & self._newest.keys()):
            values = self._newest[site]
            organ = organs.get(site, "")
            for metric, key in _MEASURES:
                samples.set(metric, values.get(key), site, organ)
            samples.set(MEASURED, self._at[site], site)
        found = self._unlearning or Unlearnt()
        for site in sorted(remaining & found.before.keys() & found.since.keys()):
            samples.set(RETAIN, found.before[site], site, organs.get(site, ""), "before")
            samples.set(RETAIN, found.since[site], site, organs.get(site, ""), "since")

    def _measured(self, found: Mapping[str, Mapping[str, float]], at: float) -> None:
        for site, values in found.items():
            if msg.PSNR in values:
                self._newest[site], self._at[site] = values, at
                self._psnr[site] = values[msg.PSNR]
                if self._unlearning is not None:
                    self._unlearning.since[site] = values[msg.PSNR]
