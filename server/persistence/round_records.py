"""What is known of a round."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from server.persistence.tables import FailedRoundRow, RoundRow

Outcome = Literal["ok", "refused", "failed", "timeout", "withdrawn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteOutcome:
    """How a round went at one site.

    Attributes
    ----------
    outcome
        ``ok``; ``refused`` by screening; ``failed`` at the site or on the way; ``timeout``; ``withdrawn``,
        as the site was barred while the round ran.
    reason
        Why it is not ``ok``.
    num_examples
        Training examples the update is made of.
    update_norm
        Euclidean norm of the update; ``None`` if there is none.
    loss
        The site's mean training loss in the round, if it reported one.
    seconds
        The site's working time, as it reported it.
    bytes_up, bytes_down
        Model bytes received from and sent to the site.
    privacy
        What the site told of the privacy it has spent in all and may spend, by the keys of
        :data:`strategies.messages.PRIVACY_METRICS`; empty without differential privacy.
    """

    outcome: Outcome
    reason: str = ""
    num_examples: int = 0
    update_norm: float | None = None
    loss: float | None = None
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    privacy: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """One round of one line of models.

    Attributes
    ----------
    line, kind, round
        Which round; unique together. Kinds are those of model versions (``train``, ``retain``).
    sites
        Site to how it went there.
    metrics
        About the round or its model: numbers and texts, in any nesting.
    seconds
        Duration of the round at the server.
    model_version
        The version the round ended with; ``None`` if there is none.
    created_at
        When it was committed, UTC; set by the log.
    """

    line: str
    kind: str
    round: int
    sites: Mapping[str, SiteOutcome]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    model_version: str | None = None
    created_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundCost:
    """What rounds cost: the three quantities unlearning is compared with training by.

    Attributes
    ----------
    rounds
        Number of rounds, also of those that were taken back.
    client_seconds
        Working time of all sites together, also of those whose reply was not used.
    bytes_up, bytes_down
        From and to all sites.
    seconds
        Duration at the server.
    """

    rounds: int
    client_seconds: float
    bytes_up: int
    bytes_down: int
    seconds: float


def row_of(record: RoundRecord, at: dt.datetime) -> RoundRow:
    """The row that describes a round committed at ``at``."""
    return RoundRow(**_columns(record, at), metrics=dict(record.metrics), model_version=record.model_version)


def failed_row_of(record: RoundRecord, at: dt.datetime) -> FailedRoundRow:
    """The row that describes a round that failed at ``at``."""
    return FailedRoundRow(**_columns(record, at))


def round_of(row: RoundRow) -> RoundRecord:
    """The round a row describes."""
    return RoundRecord(**_fields(row), metrics=row.metrics, model_version=row.model_version)


def failed_round_of(row: FailedRoundRow) -> RoundRecord:
    """The failed round a row describes."""
    return RoundRecord(**_fields(row))


def _columns(record: RoundRecord, at: dt.datetime) -> dict[str, Any]:
    return {
        "line": record.line,
        "kind": record.kind,
        "round": record.round,
        "sites": {site: asdict(outcome) for site, outcome in sorted(record.sites.items())},
        "seconds": record.seconds,
        "created_at": at,
    }


def _fields(row: RoundRow | FailedRoundRow) -> dict[str, Any]:
    return {
        "line": row.line,
        "kind": row.kind,
        "round": row.round,
        "sites": {site: SiteOutcome(**outcome) for site, outcome in row.sites.items()},
        "seconds": row.seconds,
        "created_at": row.created_at,
    }
