"""Where a model comes from: the way from the initial model to it, version by version."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from server.persistence import ModelRegistry, ModelVersion


@dataclass(frozen=True, slots=True)
class Ancestry:
    """The versions from the initial one to a model, both included, oldest first.

    Attributes
    ----------
    versions
        Each is the parent of the next.
    whole
        Whether the first one is an initial model without a parent: nothing is unknown.
    """

    versions: tuple[ModelVersion, ...]
    whole: bool

    def edges(self, sites: Collection[str]) -> list[ModelVersion]:
        """The versions on the way that were made with an update of one of ``sites``."""
        return [version for version in self.versions if set(sites) & version.sites.keys()]

    def free_of(self, sites: Collection[str]) -> bool:
        """Whether the whole way is known and has no such version."""
        # Two records must agree: the edges that are walked, and the lineage each version was given.
        said = bool(self.versions) and not set(sites) & self.versions[-1].lineage.keys()
        return self.whole and said and not self.edges(sites)


def ancestry_of(registry: ModelRegistry, version: ModelVersion) -> Ancestry:
    """Walk from ``version`` back to where it began."""
    known: Mapping[str, ModelVersion] = {found.id: found for found in registry.all()}
    way = [version]
    seen = {version.id}
    while (parent := way[-1].parent) is not None and parent in known and parent not in seen:
        way.append(known[parent])
        seen.add(parent)
    whole = way[-1].parent is None and way[-1].kind == "initial"
    return Ancestry(tuple(reversed(way)), whole)
