"""What the state has on a withdrawal: all that its certificate can rest on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from server.lineage import Ancestry, ancestry_of
from server.names import MAIN
from server.persistence import (
    ModelRegistry,
    ModelVersion,
    StateDirectory,
    WithdrawalActs,
    WithdrawalRecord,
)
from unlearning.database import ContributionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the state has on a withdrawal.

    Attributes
    ----------
    withdrawal
        The request.
    policy, fixed_at
        What was fixed before the unlearning, and when; ``None`` if nothing was.
    before, after
        The model the unlearning began from, and the one it ended with.
    ancestry
        Of ``after``.
    erased, revoked
        What the erasure listed.
    left
        Contributions of the sites that are still kept.
    touched
        The versions that were made with an update of the sites.
    """

    withdrawal: WithdrawalRecord
    policy: Mapping[str, Any] | None
    fixed_at: dt.datetime | None
    before: ModelVersion | None
    after: ModelVersion | None
    ancestry: Ancestry | None
    erased: Sequence[Mapping[str, Any]]
    revoked: Sequence[Mapping[str, Any]]
    left: int
    touched: Sequence[ModelVersion]

    @property
    def base(self) -> ModelVersion | None:
        """The version the unlearning started from: the present one, an earlier one, or the initial one."""
        if self.ancestry is None or self.fixed_at is None:
            return None
        before = [v for v in self.ancestry.versions if v.created_at <= self.fixed_at]
        return before[-1] if before else self.ancestry.versions[0]

    @property
    def versions(self) -> tuple[ModelVersion, ...]:
        """From the initial model to the new one."""
        return () if self.ancestry is None else self.ancestry.versions


def unlearned_since(
    registry: ModelRegistry, withdrawal: WithdrawalRecord, fixed_at: dt.datetime
) -> ModelVersion | None:
    """The model that the unlearning ended with whose policy was fixed at ``fixed_at``.

    An earlier one may have forgotten the same sites: before they were readmitted.
    """
    return next(
        (
            version
            for version in registry.all(MAIN)
            if version.kind == "unlearned"
            and version.created_at >= fixed_at
            and set(withdrawal.marks) <= set(version.forgotten)
        ),
        None,
    )


def record_on(state: StateDirectory, withdrawal: WithdrawalRecord) -> Record:
    """Look up everything."""
    registry, acts = ModelRegistry(state), WithdrawalActs(state)
    policies = acts.of(withdrawal.id, "policy")
    policy = policies[-1] if policies else None
    after = before = None
    if policy is not None:
        before = registry.get(policy.body["model_before"]["version"])
        after = unlearned_since(registry, withdrawal, policy.at)
    erasures = acts.of(withdrawal.id, "erasure")
    with state.reading() as session:
        query = select(ContributionRow).where(ContributionRow.site.in_(withdrawal.sites))
        # A site that was readmitted since contributes anew.
        end = withdrawal.closed_at or dt.datetime.now(dt.UTC)
        left = sum(row.created_at <= end for row in session.scalars(query))
    return Record(
        withdrawal=withdrawal,
        policy=None if policy is None else policy.body,
        fixed_at=None if policy is None else policy.at,
        before=before,
        after=after,
        ancestry=None if after is None else ancestry_of(registry, after),
        erased=[file for act in erasures for file in act.body["files"]],
        revoked=[version for act in erasures for version in act.body["revoked"]],
        left=left,
        touched=[v for v in registry.all(MAIN) if set(withdrawal.sites) & v.sites.keys()],
    )
