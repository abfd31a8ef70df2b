"""Which model versions keep their files; rows are never deleted."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy.orm import Session

from server.persistence import ModelRegistry, ModelVersion, RoundLog

NEWEST = 2
"""Versions of a line that stay in any case: the current one, and one to go back to."""


class Retention:
    """Removes the files of model versions that nobody will ask for again.

    What stays: the newest two of a line, the initial model, those that were evaluated (curves and pictures
    are made of them), the last one before each unlearning, each unlearned one, the last one before a site
    took part for the first time, and the anchors. It is found again from the database, so it is the same
    after a restart.

    Parameters
    ----------
    registry, log
        Of the state directory.
    anchor_rounds
        Training rounds whose model is kept for good.
    """

    def __init__(
        self, registry: ModelRegistry, log: RoundLog, anchor_rounds: Collection[int] = frozenset()
    ) -> None:
        self._registry = registry
        self._log = log
        self._anchor_rounds = frozenset(anchor_rounds)
        self._protected: dict[str, set[str]] = {}

    def prune(
        self, version: ModelVersion, *, evaluated: bool, session: Session | None = None
    ) -> list[ModelVersion]:
        """Having added ``version``, remove what is not needed any more of its line."""
        protected = self._protected_of(version.line, session)
        if evaluated or self._is_anchor(version):
            protected.add(version.id)
        if version.kind == "train" and version.parent and self._newcomers(version):
            # To go back there forgets a site that joined in this round exactly.
            protected.add(version.parent)
        return self._registry.prune(version.line, NEWEST, protect=protected, session=session)

    def protect(self, version: ModelVersion) -> None:
        """Keep ``version``, from which an unlearning begins."""
        self._protected_of(version.line, None).add(version.id)

    def prune_to(self, wanted: Iterable[ModelVersion]) -> list[ModelVersion]:
        """Keep ``wanted``, the initial models and each line's current one only."""
        ids = {version.id for version in wanted}
        lines = sorted({version.line for version in self._registry.all()})
        return [version for line in lines for version in self._registry.prune(line, 1, protect=ids)]

    def _protected_of(self, line: str, session: Session | None) -> set[str]:
        if line not in self._protected:
            found = {
                record.model_version
                for record in self._log.all(line, session=session)
                if record.model_version and record.metrics.get("evaluation")
            }
            self._protected[line] = found | self._landmarks(self._registry.all(line, session=session))
        return self._protected[line]

    def _landmarks(self, versions: Iterable[ModelVersion]) -> set[str]:
        found: set[str] = set()
        trained: ModelVersion | None = None
        for version in versions:
            if version.kind == "train" and version.parent and self._newcomers(version):
                found.add(version.parent)
            if self._is_anchor(version) or version.kind == "unlearned":
                found.add(version.id)
            if version.kind in ("retain", "unlearned") and trained is not None:
                found.add(trained.id)
            trained = version if version.kind in ("train", "unlearned") else None
        return found

    @staticmethod
    def _newcomers(version: ModelVersion) -> list[str]:
        return [site for site in version.sites if version.lineage[site].first == version.round]

    def _is_anchor(self, version: ModelVersion) -> bool:
        return version.kind == "train" and version.round in self._anchor_rounds
