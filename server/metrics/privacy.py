"""Metrics of differential privacy: what each site told of its own budget in its last round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconsent.exposition import Metric, Samples, Topic
from strategies import messages as msg

SPENT = Metric(
    "reconsent_privacy_epsilon_spent",
    "gauge",
    "ε that a site has spent in this consortium in all, as it told in its last accepted reply, by whom it "
    "protects as one (unit)",
    ("site", "unit"),
    "for active sites that train with differential privacy",
)
BUDGET = Metric(
    "reconsent_privacy_epsilon_budget",
    "gauge",
    "Most ε that a site will spend; what is left is this less what is spent",
    ("site", "unit"),
    "for active sites that have such a limit",
)

SITS_OUT = Metric(
    "reconsent_privacy_sits_out",
    "gauge",
    "1 if a site has refused its last round because of its limits of privacy, else 0; a site that has done "
    "so from the start has told of nothing else",
    ("site",),
    "for active sites that train with differential privacy, or would",
)

TOPIC = Topic("Differential privacy", (SPENT, BUDGET, SITS_OUT))


@dataclass(slots=True)
class Privacy:
    """Follows what the sites told."""

    _told: dict[str, Mapping[str, float]] = field(default_factory=dict)
    _out: set[str] = field(default_factory=set)

    def take(self, site: str, told: Mapping[str, float]) -> None:
        """Take up what one site told in a round that it trained in: nothing, if that had no privacy."""
        self._out.discard(site)
        if told:
            self._told[site] = told

    def sit_out(self, site: str) -> None:
        """Take up that a site has refused a round because of its limits."""
        self._out.add(site)

    def collect(self, samples: Samples, remaining: frozenset[str]) -> None:
        """Fill in this topic's metrics."""
        for site in sorted(remaining & (self._told.keys() | self._out)):
            samples.set(SITS_OUT, float(site in self._out), site)
        for site in sorted(remaining & self._told.keys()):
            told = self._told[site]
            for unit, key in msg.EPSILON.items():
                if key in told:
                    limit = msg.SITE_EPSILON_CEILING if unit == "site" else msg.EPSILON_CEILING
                    samples.set(SPENT, told[key], site, unit)
                    samples.set(BUDGET, told.get(limit), site, unit)
