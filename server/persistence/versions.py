"""What is known of a model version."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from server.persistence.json_values import dump_json
from server.persistence.tables import ModelRow

KINDS = ("initial", "train", "retain", "unlearned")
"""How a version came about."""


class VersionStatus(StrEnum):
    """Whether a version may be used."""

    ACTIVE = "active"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class RoundSpan:
    """First and last round in which a site's update entered a model or one of its ancestors."""

    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A model version and where it comes from.

    Attributes
    ----------
    id
        Names the version: a hash of its content, its place and its parent.
    line, round, kind
        Line of models (``main``, ``oracle-1``), round on it, and one of :data:`KINDS`.
    parent
        The version it was made from.
    digest
        SHA-256 of the arrays (:func:`server.persistence.tensors.content_hash`); names the file.
    bytes
        Size of the file.
    names
        Names of the arrays, in the model's own order.
    sites
        Site to its weight in this round.
    lineage
        Every site whose update is in this version or in an ancestor.
    forgotten
        Sites of the lineage that were unlearned since. The lineage keeps them: an approximate method
        leaves no proof in the weights.
    method
        The unlearning method, if one made it.
    status, reason
        Whether it may be used, and why not.
    pruned
        Its file was removed; the row stays as evidence.
    created_at
        UTC.
    """

    id: str
    line: str
    round: int
    kind: str
    parent: str | None
    digest: str
    bytes: int
    names: tuple[str, ...]
    sites: Mapping[str, float]
    lineage: Mapping[str, RoundSpan]
    forgotten: tuple[str, ...]
    method: str | None
    status: VersionStatus
    reason: str | None
    pruned: bool
    created_at: dt.datetime

    @property
    def filename(self) -> str:
        """Name of its file among the models."""
        return model_filename(self.digest)

    def depends_on(self, site: str) -> bool:
        """Whether an update of ``site`` is in it that was not unlearned since."""
        return site in self.lineage and site not in self.forgotten


def model_filename(digest: str) -> str:
    """Name of the file with content ``digest``."""
    return f"{digest}.safetensors"


def merge_lineage(parent: Mapping[str, RoundSpan], sites: Iterable[str], round_: int) -> dict[str, RoundSpan]:
    """The lineage of a version made in ``round_`` from ``sites``' updates to a parent."""
    merged = dict(parent)
    for site in sites:
        span = merged.get(site, RoundSpan(round_, round_))
        merged[site] = RoundSpan(min(span.first, round_), max(span.last, round_))
    return dict(sorted(merged.items()))


def version_id(*parts: object) -> str:
    """A name of 16 hexadecimal digits that depends on all of ``parts``."""
    return hashlib.sha256(dump_json(list(parts)).encode()).hexdigest()[:16]


def version_of(row: ModelRow) -> ModelVersion:
    """The version a row describes."""
    return ModelVersion(
        id=row.id,
        line=row.line,
        round=row.round,
        kind=row.kind,
        parent=row.parent,
        digest=row.digest,
        bytes=row.bytes,
        names=tuple(row.names),
        sites=row.sites,
        lineage={site: RoundSpan(**span) for site, span in row.lineage.items()},
        forgotten=tuple(row.forgotten),
        method=row.method,
        status=VersionStatus(row.status),
        reason=row.reason,
        pruned=row.pruned,
        created_at=row.created_at,
    )
