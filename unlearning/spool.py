"""The updates of the round in progress, on disk, so that memory does not grow with the number of sites."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconsent.errors import ContributionError
from reconsent.files import write_whole
from unlearning.parameters import Vector
from unlearning.sealing import KEY_BYTES, SUFFIX, SealError, place, seal, unseal
from unlearning.vector_files import decode, encode


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

    The files are sealed by a key that only this object has. It is never written down, so what a killed
    process leaves behind can be read by nobody, not even by the next one: the round is done again.

    Parameters
    ----------
    directory
        Emptied when a round begins, and when it has been committed: updates must not lie around.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._updates: dict[str, SpooledUpdate] = {}
        self._key = os.urandom(KEY_BYTES)
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
            with path.open("wb", buffering=0) as file:
                for piece in seal(self._key, _place(site), encode({"update": update}, "float32")):
                    write_whole(file.fileno(), piece)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise ContributionError(
                f"The update of site '{site}' cannot be written to {path}: {error}.",
                "Free space in the state directory; the round can then be repeated.",
            ) from error
        self._updates[site] = SpooledUpdate(site, examples, norm)

    def get(self, site: str) -> Vector:
        """The update ``(P,)`` of ``site``, read from disk anew, so that the caller may change it.

        Raises
        ------
        ContributionError
            If there is none, or its file cannot be read.
        """
        if site not in self._updates:
            raise ContributionError(f"Site '{site}' has sent no update this round.")
        try:
            return decode(unseal(self._path(site), self._key, _place(site)))["update"]
        except (OSError, SealError) as error:
            raise ContributionError(f"The spooled update of site '{site}' is unreadable: {error}.") from error

    def drop(self, site: str) -> None:
        """Forget the update of ``site``; nothing if there is none."""
        if self._updates.pop(site, None) is not None:
            self._path(site).unlink()

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
        for file in self._directory.glob("*"):
            file.unlink()

    def _path(self, site: str) -> Path:
        return self._directory / f"{site}{SUFFIX}"


def _place(site: str) -> bytes:
    return place("spool", site)
