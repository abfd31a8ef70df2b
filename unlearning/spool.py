"""The updates of the round in progress, on disk, so that memory does not grow with the number of sites."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from reconsent.errors import ContributionError
from unlearning.parameters import Vector


@dataclass(frozen=True, slots=True)
class SpooledUpdate:
    """What is known of one spooled update without reading it.

    Attributes
    ----------
    site
        Whose update it is.
    examples
        The site's number of training examples.
    norm
        Euclidean norm of the update.
    """

    site: str
    examples: int
    norm: float


class UpdateSpool:
    """Keeps the accepted updates of one round as files until the round is committed.

    Replies arrive in any order; averaging them in the order of their arrival would make the last bits of
    the model depend on it. The spool lets each reply be dropped from memory as it comes and the average be
    taken in the order of the sites' names afterwards.

    Parameters
    ----------
    directory
        Emptied when a round begins, and when it has been committed: updates must not lie around.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._updates: dict[str, SpooledUpdate] = {}
        directory.mkdir(parents=True, exist_ok=True)
        self.clear()

    def put(self, site: str, update: Vector, *, examples: int, norm: float) -> None:
        """Keep ``update`` ``(P,)`` of ``site``.

        Raises
        ------
        ContributionError
            If it is the site's second one of the round, or cannot be written.
        """
        if site in self._updates:
            raise ContributionError(f"Site '{site}' has already sent an update this round.")
        path = self._path(site)
        try:
            save_file({"update": update}, path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise ContributionError(
                f"The update of site '{site}' cannot be written to {path}: {error}.",
                "Free space in the state directory; the round can then be repeated.",
            ) from error
        self._updates[site] = SpooledUpdate(site, examples, norm)

    def get(self, site: str) -> Vector:
        """The update ``(P,)`` of ``site``, read from disk.

        Raises
        ------
        ContributionError
            If there is none, or its file cannot be read.
        """
        if site not in self._updates:
            raise ContributionError(f"Site '{site}' has sent no update this round.")
        try:
            update: Vector = load_file(self._path(site))["update"]
        except (OSError, SafetensorError, KeyError) as error:
            raise ContributionError(f"The spooled update of site '{site}' is unreadable: {error}.") from error
        return update

    def updates(self) -> list[SpooledUpdate]:
        """Every spooled update, in the order of the sites' names."""
        return [self._updates[site] for site in sorted(self._updates)]

    def weights(self) -> dict[str, float]:
        """Each site's share p of the round's training examples; they sum to one."""
        total = sum(update.examples for update in self._updates.values())
        return {update.site: update.examples / total for update in self.updates()}

    def clear(self) -> None:
        """Forget the round."""
        self._updates.clear()
        for file in self._directory.glob("*.safetensors"):
            file.unlink()

    def _path(self, site: str) -> Path:
        return self._directory / f"{site}.safetensors"
