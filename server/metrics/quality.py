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
    "reconsent_evaluation_ssim_ratio", "gauge", "The same, mean SSIM", ("site", "organ"), "as above"
)
NMSE = Metric(
    "reconsent_evaluation_nmse_ratio",
    "gauge",
    "The same, mean normalised squared error",
    ("site", "organ"),
    "as above",
)
MEASURED = Metric(
    "reconsent_evaluation_timestamp_seconds",
    "gauge",
    "When that was committed, in seconds since 1970",
    ("site",),
    "as above",
)
RETAIN = Metric(
    "reconsent_unlearning_psnr_decibels",
    "gauge",
    "Mean PSNR at a remaining site, last measured before the newest unlearning, and last measured since",
    ("site", "organ", "model"),
    "once there was an unlearning, for sites that measured both before it and since",
)

TOPIC = Topic("Image quality", (PSNR, SSIM, NMSE, MEASURED, RETAIN))

_MEASURES = ((PSNR, msg.PSNR), (SSIM, msg.SSIM), (NMSE, msg.NMSE))


@dataclass(slots=True)
class Quality:
    """Follows what the sites measured, round by round."""

    _newest: dict[str, Mapping[str, float]] = field(default_factory=dict)
    _at: dict[str, float] = field(default_factory=dict)
    _before: dict[str, float] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)
    _phase: str = "train"
    _ended: int = 0
    _unlearnt: bool = False

    def take(self, phase: str, at: float, metrics: Mapping[str, Any], ended: int) -> None:
        """Take up one round's record: first what was measured of the model it began with, then of its end.

        Parameters
        ----------
        phase, at, metrics
            Of the round.
        ended
            How many unlearnings had come to their end before it: one may follow another at once.
        """
        self._measured(metrics.get("incoming", {}), at)
        if phase == "unlearn" and (self._phase, self._ended) != (phase, ended):
            self._before = {site: v[msg.PSNR] for site, v in self._newest.items() if msg.PSNR in v}
            self._since, self._unlearnt = {}, True
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
        for site in sorted(remaining & self._before.keys() & self._since.keys()):
            samples.set(RETAIN, self._before[site], site, organs.get(site, ""), "before")
            samples.set(RETAIN, self._since[site], site, organs.get(site, ""), "since")

    def _measured(self, found: Mapping[str, Mapping[str, float]], at: float) -> None:
        for site, values in found.items():
            if msg.PSNR in values:
                self._newest[site], self._at[site] = values, at
                if self._unlearnt:
                    self._since[site] = values[msg.PSNR]
