"""The keys of sites: what is kept of a site can be read as long as its key is there, and no longer.

Each site has a key of its own, made when something of it is kept for the first time, and stored wrapped by a
master key, one file a site. Destroying that file makes everything unreadable that was ever sealed by it,
wherever copies of it may lie.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reconsent.errors import EncryptionError
from reconsent.files import shred, write_private
from unlearning.master_key import (
    MADE_BY,
    CommandKey,
    LocalKey,
    MasterKey,
    read_key_file,
    write_key_file,
)
from unlearning.sealing import KEY_BYTES

MASTER_VARIABLE = "RECONSENT_MASTER_KEY"
"""Environment variable with one or more master keys, separated by commas, the one in force first."""

MASTER_FILE = "master.key"
SITES = "sites"
SUFFIX = ".key"

Entry = dict[str, Any]
"""A wrapped key as it is stored: ``site``, ``master``, ``wrapped``, ``made_at``."""


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """Where the master key is.

    Attributes
    ----------
    source
        ``file``, ``env`` (the variable :data:`MASTER_VARIABLE`) or ``command``.
    file
        The file; made at first use. ``None`` for ``master.key`` beside the wrapped keys.
    wrap_command, unwrap_command
        Command lines of a key management service; see :class:`~unlearning.master_key.CommandKey`.
    """

    source: Literal["file", "env", "command"] = "file"
    file: Path | None = None
    wrap_command: str = ""
    unwrap_command: str = ""


class SiteKeys:
    """The wrapped keys of every site; may be used by several threads at once.

    Parameters
    ----------
    directory
        Where wrapped keys are, and the master key unless ``policy`` says otherwise.
    policy
        Where the master key is.
    """

    def __init__(self, directory: Path, policy: KeyPolicy) -> None:
        self.policy = policy
        self.file = policy.file or directory / MASTER_FILE
        self._directory = directory / SITES
        self._masters: dict[str, MasterKey] = {}
        self._current: MasterKey | None = None
        self._keys: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def key(self, site: str) -> bytes:
        """The key of ``site``, 32 bytes; made if it has none.

        Raises
        ------
        EncryptionError
            If there is no master key, it is another one, or the key cannot be written.
        """
        with self._lock:
            if site not in self._keys:
                path = self._path(site)
                self._keys[site] = self._unwrapped(_read(path)) if path.is_file() else self._make(site)
            return self._keys[site]

    def existing(self, site: str) -> bytes:
        """The key of ``site``, to read what was sealed by it.

        Raises
        ------
        EncryptionError
            If it has none, or its key cannot be unwrapped.
        """
        if site not in self._keys and not self._path(site).is_file():
            raise EncryptionError(
                f"The key of site '{site}' is missing: there is no {self._path(site)}. What was kept of the "
                "site cannot be read.",
                "Put the file back from the newest copy of the keys (`reconsent keys import`); without one, "
                "unlearn by a method that needs no contributions, such as retrain.",
            )
        return self.key(site)

    def sites(self) -> list[str]:
        """Sites that have a key, by name."""
        return sorted(path.name.removesuffix(SUFFIX) for path in self._directory.glob(f"*{SUFFIX}"))

    def check(self) -> None:
        """Make sure that every key can be used and a new one could be made; make the master key if none is.

        Raises
        ------
        EncryptionError
            If not.
        """
        self._sweep()
        for site in self.sites():
            self.key(site)
        probe = os.urandom(KEY_BYTES)
        master = self._master()
        if master.unwrap("probe", master.wrap("probe", probe)) != probe:
            raise EncryptionError(
                "The unwrap-command does not give back what the wrap-command was given.",
                "Mend the commands in [contributions]; nothing was changed.",
            )

    def destroy(self, sites: Iterable[str]) -> list[str]:
        """Destroy the keys of ``sites``, for good; returns those that had one.

        Raises
        ------
        EncryptionError
            If a file can be neither overwritten nor unlinked.
        """
        destroyed = []
        for site in sorted(set(sites)):
            path = self._path(site)
            with self._lock:
                self._keys.pop(site, None)
                if not path.exists():
                    continue
                try:
                    shred(path)
                except OSError as error:
                    raise EncryptionError(
                        f"The key {path} of site '{site}' cannot be destroyed: {error}.",
                        "Check its owner and permissions; the withdrawal is then gone on with.",
                    ) from error
            destroyed.append(site)
        return destroyed

    def entries(self) -> dict[str, Entry]:
        """Every wrapped key as it is stored, by site."""
        return {site: _read(self._path(site)) for site in self.sites()}

    def put_back(self, entries: Mapping[str, Entry]) -> list[str]:
        """Store wrapped keys of sites that have none here; returns those sites."""
        missing = sorted(set(entries) - set(self.sites()))
        for site in missing:
            self._store({**entries[site], "site": site})
        return missing

    def rewrap(self) -> str:
        """Wrap every key anew by a new master key, and destroy the former; returns the new one's name.

        Of a file: a new master key is made there. Of the environment or a command: keys are wrapped by the
        one in force now. Cut off at any moment, it can be repeated; every key can be unwrapped meanwhile.

        Raises
        ------
        EncryptionError
            If a key cannot be unwrapped, or written.
        """
        self.check()
        if self.policy.source == "file":
            fresh = LocalKey(os.urandom(KEY_BYTES), str(self.file))
            write_key_file(self.file, [fresh, *read_key_file(self.file)])
            self._masters, self._current = {}, None
        master = self._master()
        for site in self.sites():
            self._store(self._wrapped(site, self.key(site), master))
        if self.policy.source == "file":
            # Held by a second name, so that its bytes can be overwritten once the new one has its place.
            keys = read_key_file(self.file)[:1]
            os.link(self.file, self._former())
            write_key_file(self.file, keys)
            shred(self._former())
        return master.name

    # ---- inside -----------------------------------------------------------------------------------------

    def _make(self, site: str) -> bytes:
        key = os.urandom(KEY_BYTES)
        self._store(self._wrapped(site, key, self._master()))
        return key

    @staticmethod
    def _wrapped(site: str, key: bytes, master: MasterKey) -> Entry:
        made_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        return {"site": site, "master": master.name, "wrapped": master.wrap(site, key), "made_at": made_at}

    def _store(self, entry: Entry) -> None:
        path = self._path(entry["site"])
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(path, json.dumps(entry).encode())
        except OSError as error:
            raise EncryptionError(
                f"The key {path} cannot be written: {error}.",
                "Free space in the state directory; the round can then be repeated.",
            ) from error

    def _unwrapped(self, entry: Entry) -> bytes:
        master = self._known().get(entry["master"])
        if master is None:
            raise EncryptionError(
                f"The key of site '{entry['site']}' was wrapped by master key {entry['master']}, and "
                f"{self._here()}.",
                "Put that master key back where [contributions] says; nothing was changed, and nothing can "
                "be read without it.",
            )
        return master.unwrap(entry["site"], entry["wrapped"])

    def _master(self) -> MasterKey:
        """The master key in force; made if there is none and nothing was wrapped yet."""
        known = self._known()
        if self._current is None:
            if self.policy.source == "env":
                raise EncryptionError(
                    f"The environment variable {MASTER_VARIABLE} is not set, and [contributions] says "
                    'encryption = "env".',
                    f"{MADE_BY}; set it for the SuperLink and for every command on the server.",
                )
            if self.sites():
                raise EncryptionError(
                    f"There is no master key {self.file}, and the keys of {', '.join(self.sites())} were "
                    "wrapped by one.",
                    "Put it back from its copy; nothing was changed, and nothing can be read without it.",
                )
            made = LocalKey(os.urandom(KEY_BYTES), str(self.file))
            write_key_file(self.file, [made])
            known[made.name] = self._current = made
        return self._current

    def _known(self) -> dict[str, MasterKey]:
        """Master keys by name: all that can be had here, so that keys may be wrapped anew by another kind."""
        if not self._masters:
            in_file = read_key_file(self.file)
            variable = os.environ.get(MASTER_VARIABLE, "")
            in_variable = [
                LocalKey.of_text(text, f"The environment variable {MASTER_VARIABLE}")
                for text in variable.split(",")
                if text.strip()
            ]
            found: list[MasterKey] = [*in_file, *in_variable]
            if self.policy.wrap_command and self.policy.unwrap_command:
                found.append(CommandKey(self.policy.wrap_command, self.policy.unwrap_command))
            self._masters = {master.name: master for master in found}
            chosen: Mapping[str, list[LocalKey]] = {"file": in_file, "env": in_variable}
            if self.policy.source == "command":
                self._current = self._masters.get(CommandKey.name)
            elif chosen[self.policy.source]:
                self._current = chosen[self.policy.source][0]
        return self._masters

    def _sweep(self) -> None:
        """Remove what a killed process may have left: secrets written half, a master key replaced."""
        parts = [*self._directory.glob(".*.part"), *self.file.parent.glob(f".{self.file.name}.*.part")]
        for left in [*parts, self._former()]:
            shred(left)

    def _former(self) -> Path:
        return self.file.with_name(f"{self.file.name}.old")

    def _here(self) -> str:
        names = sorted(self._known())
        return f"here is {', '.join(names)}" if names else "there is none here"

    def _path(self, site: str) -> Path:
        return self._directory / f"{site}{SUFFIX}"


def _read(path: Path) -> Entry:
    remedy = "Put the file back from the newest copy of the keys (`reconsent keys import`)."
    try:
        entry: Entry = json.loads(path.read_text(encoding="utf-8"))
        if {"site", "master", "wrapped"} <= entry.keys():
            return entry
    except OSError as error:
        raise EncryptionError(f"The key {path} cannot be read: {error.strerror}.", remedy) from None
    except (ValueError, AttributeError):
        pass
    raise EncryptionError(f"The key {path} is truncated or altered.", remedy)
