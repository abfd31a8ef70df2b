"""What came of a round, at each site and as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flwr.app import ArrayRecord, MetricRecord

from reconsent.errors import RoundError
from strategies import messages as msg


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes of models sent to a site (down) and received from it (up)."""

    down: int = 0
    up: int = 0

    def plus(self, down: int, up: int) -> Moved:
        """With more of them."""
        return Moved(self.down + down, self.up + up)


@dataclass(frozen=True, slots=True)
class SiteOutcome:
    """What became of one site in one round.

    Attributes
    ----------
    outcome
        ``ok``, ``refused`` (by the screen, or by the site itself: see :attr:`declined`), or how the exchange
        failed (``timeout``, ``app_error``, …).
    reason
        In words; if ok, what was corrected in the reply, or nothing.
    metrics
        The scalars the site reported.
    norm
        ‖Δ‖ of its update; 0 unless ok.
    bytes_down, bytes_up
        Model bytes sent to and received from the site; 0 down if its message never went out.
    """

    site: str
    outcome: str
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    norm: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0

    def refused(self, reason: str) -> SiteOutcome:
        """The same, but its update was refused."""
        return replace(self, outcome="refused", reason=reason, norm=0.0)

    @property
    def declined(self) -> bool:
        """Whether the site itself refused the work, by its own policy: that says nothing of the model."""
        return self.outcome == "refused" and self.reason.startswith(f"{msg.REFUSED_BY_SITE}:")


_QUALITY = (msg.PSNR, msg.SSIM, msg.NMSE)
_NOT_OF_TRAINING = {
    *(msg.NUM_EXAMPLES, msg.TEST_EXAMPLES, msg.EVALUATION_SECONDS, msg.WITNESSED, msg.LEFT_OUT),
    *_QUALITY,
}


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """One finished round.

    Attributes
    ----------
    round
        Its number.
    kind
        ``train`` or ``retain``.
    arrays
        The model after it.
    weights
        Share p of each site whose update is in the model.
    sites
        What became of each site that was asked.
    seconds
        Wall-clock duration.
    notes
        What the strategy did besides (ascent step, norm, gate loss, …).
    accepted
        False if the round was taken back; the model is then the one before it.
    steps
        Seconds of its parts: ``prepare``, ``replies`` (waiting for them and screening), ``average``.
    """

    round: int
    kind: str
    arrays: ArrayRecord
    weights: Mapping[str, float]
    sites: tuple[SiteOutcome, ...]
    seconds: float
    notes: Mapping[str, float] = field(default_factory=dict)
    accepted: bool = True
    steps: Mapping[str, float] = field(default_factory=dict)

    def incoming(self) -> dict[str, dict[str, float]]:
        """Quality of the model that the round began with, at each site that measured it."""
        return {
            site.site: {key: site.metrics[key] for key in _QUALITY if key in site.metrics}
            for site in self.sites
            if msg.TEST_EXAMPLES in site.metrics
        }

    def metrics(self) -> MetricRecord:
        """Weighted means of the sites' metrics, and the number of sites.

        What a site says of the model it received is no part of it; see :meth:`incoming`.
        """
        record = MetricRecord({"sites": len(self.weights)})
        for key in sorted({key for site in self.sites for key in site.metrics} - _NOT_OF_TRAINING):
            values = [
                (self.weights[s.site], s.metrics[key])
                for s in self.sites
                if key in s.metrics and s.site in self.weights
            ]
            if values:
                record[key] = sum(p * v for p, v in values) / sum(p for p, _ in values)
        return record


class TooFewRepliesError(RoundError):
    """A round got fewer usable replies than it needs; nothing of it is kept but what became of its sites.

    Attributes
    ----------
    round, kind, sites, seconds
        As in :class:`RoundOutcome`.
    """

    def __init__(
        self,
        problem: str,
        remedy: str,
        *,
        round: int,
        kind: str,
        sites: tuple[SiteOutcome, ...],
        seconds: float,
    ) -> None:
        super().__init__(problem, remedy)
        self.round = round
        self.kind = kind
        self.sites = sites
        self.seconds = seconds


def weighted_metrics(values: Mapping[str, Mapping[str, float]]) -> MetricRecord | None:
    """Means of the sites' metrics weighted by ``num-examples``.

    A site without examples has no say; ``None`` if no other is left.
    """
    told = {site: metrics.get(msg.NUM_EXAMPLES, 1.0) for site, metrics in values.items()}
    examples = {site: number for site, number in told.items() if 0 < number < math.inf}
    if not examples:
        return None
    keys = sorted({key for site in examples for key in values[site]} - {msg.NUM_EXAMPLES})
    record = MetricRecord()
    for key in keys:
        having = [site for site in examples if key in values[site]]
        total = sum(examples[site] for site in having)
        record[key] = sum(examples[site] * values[site][key] for site in having) / total
    return record
