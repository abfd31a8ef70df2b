"""The directory of keys: the sites' keys, who was erased, and where copies of the keys are.

It is the one part of the state that a backup leaves out. What a backup holds is sealed; the keys go into
*one* copy beside all backups, which every new backup and every erasure overwrites. So an old backup cannot
be read any more as far as sites are concerned that have been erased since, and a restored one is told who
they are.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reconsent.errors import EncryptionError, StateError
from reconsent.files import shred, write_private
from unlearning.site_keys import Entry, KeyPolicy, SiteKeys

ERASED, COPIES, LOCK = "erased.json", "copies.json", "keys.lock"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Erasure:
    """That a site's contributions were erased, and its key destroyed.

    Attributes
    ----------
    site, withdrawal
        Whose, and by which withdrawal.
    at
        When, ISO 8601, UTC.
    patients
        How many patients had left a site that stayed; 0: the site left.
    """

    site: str
    withdrawal: str
    at: str
    patients: int = 0


@dataclass(frozen=True, slots=True)
class KeyCopy:
    """A copy of the wrapped keys.

    Attributes
    ----------
    keys
        Wrapped keys by site.
    erased
        Who had been erased when it was written.
    written_at
        When that was, ISO 8601, UTC.
    """

    keys: dict[str, Entry]
    erased: tuple[Erasure, ...]
    written_at: str

    @classmethod
    def read(cls, path: Path) -> KeyCopy:
        """Read a copy.

        Raises
        ------
        StateError
            If it is missing, or no copy of keys.
        """
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            erased = tuple(Erasure(**entry) for entry in table["erased"])
            if table["format"] == FORMAT:
                return cls(dict(table["keys"]), erased, str(table["written_at"]))
        except OSError as error:
            raise StateError(f"The copy of the keys {path} cannot be read: {error.strerror}.") from None
        except (ValueError, KeyError, TypeError):
            pass
        raise StateError(
            f"{path} is no copy of the keys, or it is truncated.", "`reconsent backup` writes one."
        )


class KeyStore:
    """Everything in the directory of keys.

    Parameters
    ----------
    directory
        Of the state directory, or elsewhere; made if missing.
    policy
        Where the master key is; ``None`` if nothing is sealed.
    """

    def __init__(self, directory: Path, policy: KeyPolicy | None) -> None:
        self.directory = directory
        self.sites = None if policy is None else SiteKeys(directory, policy)

    def erase(self, sites: Iterable[str], withdrawal: str, *, patients: int = 0) -> list[str]:
        """Destroy the keys of ``sites`` here and in every copy, and note that they were erased.

        With ``patients`` the sites stay, and will have new keys: so many of their patients left.

        Returns
        -------
        Copies that could not be reached, which still hold the keys; see :meth:`write_copies`.

        Raises
        ------
        EncryptionError
            If a key cannot be destroyed, or the note not be written.
        """
        leaving = sorted(set(sites))
        with self._alone():
            # Noted first: a note without a destroyed key is made good by the next attempt, the reverse not.
            self._add([Erasure(site, withdrawal, _now(), patients) for site in leaving])
            # Also if nothing is sealed any more: it may have been.
            (self.sites or SiteKeys(self.directory, KeyPolicy())).destroy(leaving)
            return self._write_copies()

    def erased(self) -> list[Erasure]:
        """Every erasure, oldest first."""
        return [Erasure(**entry) for entry in self._load(ERASED)]

    def add_erased(self, entries: Iterable[Erasure]) -> None:
        """Note erasures that another copy of this state knows of."""
        with self._alone():
            self._add(entries)

    def put_back(self, copy: KeyCopy) -> list[str]:
        """Take over what a copy has and this directory has not; returns the sites whose keys it was.

        A key that was destroyed here is not brought back by an old copy.
        """
        noted = {entry.site for entry in self.erased()} - {entry.site for entry in copy.erased}
        with self._alone():
            self._add(copy.erased)
            entries = {site: entry for site, entry in copy.keys.items() if site not in noted}
            return (self.sites or SiteKeys(self.directory, KeyPolicy())).put_back(entries)

    def add_copy(self, path: Path) -> list[str]:
        """Keep a copy of the wrapped keys at ``path`` from now on; returns copies that cannot be reached."""
        with self._alone():
            known = self.copies()
            if path not in known:
                self._write(COPIES, [str(entry) for entry in [*known, path]])
            return self._write_copies()

    def forget_copy(self, path: Path) -> None:
        """Note that the copy at ``path`` is no more: it was destroyed."""
        with self._alone():
            self._write(COPIES, [str(entry) for entry in self.copies() if entry != path])

    def copies(self) -> list[Path]:
        """Where copies are kept."""
        return [Path(entry) for entry in self._load(COPIES)]

    def write_copies(self) -> list[str]:
        """Bring every copy up to date; the old content is overwritten where it lies.

        Returns
        -------
        In words, the copies that could not be written: their disk is away, or full. What they hold is old.
        """
        with self._alone():
            return self._write_copies()

    def _add(self, entries: Iterable[Erasure]) -> None:
        noted = self.erased()
        known = {(entry.site, entry.withdrawal) for entry in noted}
        more = [entry for entry in entries if (entry.site, entry.withdrawal) not in known]
        if more:
            self._write(ERASED, [asdict(entry) for entry in [*noted, *more]])

    def _write_copies(self) -> list[str]:
        failed = []
        for path in self.copies():
            try:
                _replace(path, self._copy())
            except OSError as error:
                failed.append(f"{path} ({error.strerror})")
        return failed

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While one process writes copies no other destroys keys, or the copies would bring them back."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise EncryptionError(
                f"The directory of keys {self.directory} cannot be used: {error.strerror}.",
                "Check its owner and permissions, and that its disk is not full.",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _copy(self) -> bytes:
        keys = SiteKeys(self.directory, KeyPolicy()).entries()
        erased = [asdict(entry) for entry in self.erased()]
        table = {"format": FORMAT, "written_at": _now(), "keys": keys, "erased": erased}
        return json.dumps(table, indent=1).encode()

    def _load(self, name: str) -> list[Any]:
        path = self.directory / name
        try:
            found: list[Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise EncryptionError(
                f"{path} cannot be read: {error}.", "Put it back from the newest copy of the keys."
            ) from None
        return found

    def _write(self, name: str, entries: list[Any]) -> None:
        path = self.directory / name
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(path, json.dumps(entries, indent=1).encode())
        except OSError as error:
            raise EncryptionError(
                f"{path} cannot be written: {error}.", "Free space in the state directory and try again."
            ) from error


def _replace(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole, then overwrite what was there before."""
    # By renaming alone: disks that backups go to may know no links.
    fresh, former = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    write_private(fresh, content)
    shred(former)
    if path.exists():
        path.replace(former)
    fresh.replace(path)
    shred(former)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
