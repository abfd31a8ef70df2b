"""A backup of everything on the server, and the way back: state, certificates, registered nodes, and keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploy.layout import Layout
from deploy.residue import purged_copy
from reconsent.config import ConsortiumConfig, load_consortium
from reconsent.errors import StateError
from server.persistence import Ledger, StateDirectory
from server.persistence.backup import (
    Manifest,
    Unfinished,
    discard_backup,
    finish_restore,
    make_backup,
    restore_backup,
)
from server.persistence.ledger_entries import STATE_COPIED, STATE_RESTORED
from server.persistence.own_checkpoints import CHECKPOINT_FILE
from server.persistence.state import DATABASE, KEYS, LOCK, explaining_os_errors
from server.restoring import Reapplied, reapply_erasures, unreadable
from server.safekeeping import expire_between_runs, key_policy
from unlearning.contributions import ContributionCache
from unlearning.key_store import KeyCopy, KeyStore

KEY_COPY = "reconsent-keys.json"
"""Name of the copy of the keys, beside the directories of the backups: one for all of them."""

_LEFT_OUT = {
    *(KEYS, "spool", "deployment", "phantoms", "models", "contributions", "unlearning", LOCK),
    CHECKPOINT_FILE,
}


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made.

    Attributes
    ----------
    manifest
        What is in it.
    key_copy
        Where the wrapped keys are.
    unreached
        Other copies of the keys that could not be brought up to date.
    sealed
        Every contribution in it is encrypted, so that an erasure reaches it.
    """

    manifest: Manifest
    key_copy: Path
    unreached: tuple[str, ...]
    sealed: bool


@dataclass(frozen=True, slots=True)
class Restored:
    """A backup that was restored.

    Attributes
    ----------
    manifest
        What was in it.
    reapplied
        Sites that were erased after it was made, and are kept out.
    unreadable
        Why contributions cannot be read; empty if they can.
    """

    manifest: Manifest
    reapplied: tuple[Reapplied, ...]
    unreadable: str


def back_up(state: Path, target: Path, key_copy: Path | None = None) -> Backup:
    """Back a state directory up while a server may be at work in it.

    The backup holds no key: the wrapped keys of the sites go to ``key_copy``, which is overwritten by every
    backup and by every erasure. The master key goes nowhere; keep a copy of it apart from both.

    Parameters
    ----------
    state
        The state directory.
    target
        A new directory.
    key_copy
        File for the wrapped keys; ``None`` for :data:`KEY_COPY` beside ``target``.

    Raises
    ------
    StateError
        If there is no state, the target is not empty, or a disk is full.
    EncryptionError
        If a key cannot be read.
    """
    layout = Layout(state.absolute())
    copied_to = (key_copy or target.absolute().parent / KEY_COPY).absolute()
    if copied_to.is_relative_to(target.absolute()):
        raise StateError(
            f"The copy of the keys {copied_to} would lie in the backup {target}.",
            "Name a file outside of it: an erasure overwrites it, and a backup stays as it is.",
        )
    if (config := consortium_of(layout, None)) is not None:
        expire_between_runs(layout.state, config)  # what is too old shall not live on in backups
    with StateDirectory.open(layout.state, exclusive=False) as opened:
        store = KeyStore(opened.keys_dir, None)
        erased = sorted({entry.withdrawal for entry in store.erased()})
        # Before contributions are read; so the backup itself holds this entry.
        # None may be kept yet, but be when they are copied: so the consortium file counts as well.
        plain = config is not None and config.contributions.encryption == "none"
        sealed = not plain and ContributionCache(opened.contributions_dir, opened.session).upkeep.all_sealed()
        Ledger(opened).append(STATE_COPIED, {"erasures": len(erased), "sealed": sealed})
        manifest = make_backup(opened, target, partial(_others, layout), erased)
        failed = store.add_copy(copied_to)
    if any(text.startswith(f"{copied_to} ") for text in failed):
        with explaining_os_errors(f"The backup {target}"):
            discard_backup(target)
        raise StateError(
            f"The copy of the keys {copied_to} cannot be written. Without it the backup {target} could not "
            "be read, so it was removed.",
            "Free space there, or name another file with --keys; then ask again.",
        )
    return Backup(manifest, copied_to, tuple(failed), sealed)


def restore(
    backup: Path, state: Path, key_copy: Path | None, *, consortium: Path | None = None, alone: bool = False
) -> Restored:
    """Restore a backup, and keep out whoever was erased since.

    One that was cut off leaves a state that nobody can open; restoring again begins anew.

    Parameters
    ----------
    backup
        What :func:`back_up` made.
    state
        State directory; must hold no state, but may have kept its ``keys/``.
    key_copy
        The newest copy of the keys; ``None`` if ``keys/`` is still there.
    consortium
        Consortium file, where the backup has none: it says where the master key is.
    alone
        Restore without keys: whoever asks states that nobody has been erased since the backup.

    Raises
    ------
    StateError
        If the backup is damaged, there is a state already, or the keys are missing or older than the backup.
    """
    layout = Layout(state.absolute())
    keys_dir = layout.state / KEYS
    manifest = Manifest.read(backup)
    kept = KeyStore(keys_dir, None)
    copy = KeyCopy.read(key_copy) if key_copy is not None else None
    erased = list(dict.fromkeys([*kept.erased(), *(copy.erased if copy is not None else ())]))
    # A restore that was cut off has made a directory for keys, which says nothing of who was erased.
    unfinished = Unfinished.read(layout.state)
    keys_kept = keys_dir.is_dir() if unfinished is None else unfinished.keys_kept
    if copy is None and not keys_kept and not alone:
        raise StateError(
            "Without the newest copy of the keys nobody knows who has been erased since the backup was made.",
            f"Give it with --keys (`reconsent backup` writes {KEY_COPY}). If it is lost and you are "
            "sure that nobody has: --without-keys; kept contributions cannot be read then.",
        )
    unknown = sorted(set(manifest.erased) - {entry.withdrawal for entry in erased})
    if unknown and not alone:
        raise StateError(
            f"These keys are older than the backup: they do not know withdrawal {', '.join(unknown)}, which "
            "had erased something when the backup was made.",
            "Give the newest copy of the keys with --keys.",
        )
    restore_backup(backup, layout.state)
    config = consortium_of(layout, consortium)
    store = KeyStore(keys_dir, None if config is None else key_policy(config))
    with StateDirectory.open(layout.state, restoring=True) as opened:
        if copy is not None:
            store.put_back(copy)
        reapplied = reapply_erasures(opened, store, erased)
        if key_copy is not None:
            store.add_copy(key_copy.absolute())
        cache = ContributionCache(opened.contributions_dir, opened.session, keys=store.sites)
        why = unreadable(cache, store)
        body = {"made": manifest.made_at, "erased-since": sorted({entry.former for entry in reapplied})}
        Ledger(opened).append(STATE_RESTORED, body)
    finish_restore(layout.state)
    return Restored(manifest, tuple(reapplied), why)


def consortium_of(layout: Layout, given: Path | None) -> ConsortiumConfig | None:
    """The consortium file: the one given, or the one in force here; ``None`` if there is none."""
    for path in (given, layout.consortium, layout.state.parent / "consortium.toml"):
        if path is not None and path.is_file():
            return load_consortium(path)
    return None


def _others(layout: Layout, scratch: Path) -> dict[str, Path]:
    """What belongs to a backup beside what the database names, by its path below the backup.

    The SuperLink's database is copied to ``scratch``, at first with messages: it must be where a backup that
    was cut off is cleared away.
    """
    found: dict[str, Path] = {}
    tops = [path for path in layout.state.iterdir() if path.name not in _LEFT_OUT]
    for top in tops:
        if not top.name.startswith((".", DATABASE)):
            found |= _files_below(top, layout.state)
    for top in (layout.consortium, layout.tls, layout.keys):
        found |= _files_below(top, layout.state)
    for insecure in (False, True):
        database = layout.database(insecure=insecure)
        if database.is_file():
            copy = scratch / database.name
            purged_copy(database, copy)
            found[str(database.relative_to(layout.state))] = copy
    return found


def _files_below(top: Path, root: Path) -> dict[str, Path]:
    paths = [top] if top.is_file() else sorted(top.rglob("*"))
    return {str(path.relative_to(root)): path for path in paths if path.is_file() and not path.is_symlink()}
