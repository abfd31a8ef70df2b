"""Takes from the server's books what the evidence is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cli.evidence.collect import Subjects
from cli.gathering import Measurements, models_of
from server.bookkeeping import MAIN, Bookkeeping
from server.persistence import ModelRegistry
from unlearning.parameters import Arrays


class _Kept(Mapping[int, Arrays]):
    """The models of a training by round; each is read when it is asked for, since few are."""

    def __init__(self, registry: ModelRegistry, versions: Mapping[int, str]) -> None:
        self._registry = registry
        self._versions = versions

    def __getitem__(self, number: int) -> Arrays:
        return self._registry.load(self._versions[number], force=True)

    def __iter__(self) -> Iterator[int]:
        return iter(self._versions)

    def __len__(self) -> int:
        return len(self._versions)


def subjects(books: Bookkeeping, measured: Measurements, left: Sequence[str]) -> Subjects:
    """The models of a finished simulation, those kept of its training, and what is known of them."""
    models = models_of(books)
    original = models.original
    kept = [
        version
        for version in books.registry.all(MAIN)
        if version.kind in ("initial", "train") and version.round <= original.round and not version.pruned
    ]
    return Subjects(
        models={
            name: books.registry.load(version.id, force=True) for name, version in models.named().items()
        },
        training=_Kept(books.registry, {version.round: version.id for version in kept}),
        left=left,
        trained=models.oracle.round if models.oracle else original.round,
        unlearning_rounds=sum(record.kind == "retain" for record in books.log.all(MAIN)),
        quality=measured.quality,
        relearn=measured.relearn,
    )
