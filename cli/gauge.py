"""What an observer with everybody's data finds of one model."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cli.assessment import Observer, Split
from reconsent.config import ConsortiumConfig


@dataclass(frozen=True, slots=True)
class Figures:
    """What the observer finds of one model.

    Attributes
    ----------
    psnr, ssim
        ``retain_test``, ``forget_test`` and ``forget_train``: means over volumes, in dB and without unit.
    relearn
        Steps of fine-tuning on fresh data of the withdrawn organs → PSNR on their test volumes, in dB.
    """

    psnr: dict[str, float]
    ssim: dict[str, float]
    relearn: dict[str, float]


@dataclass(frozen=True, slots=True)
class Gauge:
    """Measures models of a consortium that some sites leave.

    Attributes
    ----------
    observer
        Whose processes do the work.
    consortium
        Whose sites are measured on.
    left
        Those that withdraw.
    """

    observer: Observer
    consortium: ConsortiumConfig
    left: Sequence[str]

    def measure(self, model: Mapping[str, np.ndarray]) -> Figures:
        """Measure named arrays on all test volumes, the leavers' training data, and by relearning."""
        relearned = self.observer.relearn({"m": model}, self.left)
        psnr, ssim = self._quality(model)
        relearn = {str(steps): value for steps, value in relearned().get("m", {}).items()}
        return Figures(psnr=psnr, ssim=ssim, relearn=relearn)

    def accuracy(self, model: Mapping[str, np.ndarray]) -> dict[str, float]:
        """PSNR in dB on ``retain_test``, ``forget_test`` and ``forget_train``, means over volumes."""
        return self._quality(model)[0]

    def _quality(self, model: Mapping[str, np.ndarray]) -> tuple[dict[str, float], dict[str, float]]:
        splits: list[tuple[str, Split]] = [(s.name, "test") for s in self.consortium.sites]
        splits += [(site, "train") for site in self.left]
        rows = self.observer.quality([("m", model, *split) for split in splits])()
        groups = {
            "retain_test": [r for r in rows if r.split == "test" and r.site not in self.left],
            "forget_test": [r for r in rows if r.split == "test" and r.site in self.left],
            "forget_train": [r for r in rows if r.split == "train"],
        }
        return (
            {name: statistics.fmean(r.psnr for r in group) for name, group in groups.items()},
            {name: statistics.fmean(r.ssim for r in group) for name, group in groups.items()},
        )
