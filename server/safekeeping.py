"""Keys of contributions, their erasure, and how long they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session

from reconsent.config import ConsortiumConfig
from server.events import Event, announce
from server.names import MAIN
from server.persistence import Ledger, RunProgress, StateDirectory, WithdrawalRecord
from server.persistence.ledger_entries import CONTRIBUTIONS_EXPIRED, expired_body
from server.persistence.lock import StateInUseError
from server.residues import note_keys_destroyed, note_made_good
from unlearning.contributions import CachePolicy, ContributionCache, discard
from unlearning.key_store import KeyStore
from unlearning.site_keys import KeyPolicy, SiteKeys

EXPIRED = "expired-updates"
"""Progress key: how many kept updates have been removed because they were too old."""


class Safekeeping:
    """Sees that contributions are sealed, not kept too long, and gone when they are erased.

    Parameters
    ----------
    state
        Open, writable state directory.
    consortium
        Its ``[contributions]`` say where the master key is.
    """

    def __init__(self, state: StateDirectory, consortium: ConsortiumConfig) -> None:
        self._state = state
        self._progress = RunProgress(state)
        self._ledger = Ledger(state)
        self.store = KeyStore(state.keys_dir, key_policy(consortium))

    @property
    def keys(self) -> SiteKeys | None:
        """The sites' keys; ``None`` if nothing is to be sealed."""
        return self.store.sites

    def begin(self, cache: ContributionCache) -> None:
        """Before the first round: every key must be usable, nothing readable or too old be left.

        Raises
        ------
        EncryptionError
            If a key or the master key is missing or wrong; nothing was changed then.
        ContributionError
            If a file that should be sealed is altered.
        """
        if self.keys is not None:
            self.keys.check()
            cache.upkeep.check_keys()
        sealed = cache.upkeep.seal_plain()
        if sealed:
            announce(Event("notice", f"{sealed} files of contributions were not encrypted, and are now."))
        with self._state.session() as session:
            count = self.expire(cache, session)
        _announce_expired(count)
        self._announce_copies(unreached := self.store.write_copies())
        note_made_good(self._state, len(unreached), log_emptied=self._state.scrub())

    def expire(self, cache: ContributionCache, session: Session) -> int:
        """Remove updates that are too old, once ``session`` is committed; returns how many."""
        expired = cache.upkeep.expire(session=session)
        if expired.count:
            self._progress.put(EXPIRED, self.expired() + expired.count, session=session)
            body = expired_body(expired.sites, expired.sha256)
            self._ledger.append(CONTRIBUTIONS_EXPIRED, body, session=session)
            self._state.after_commit(session, lambda: discard(expired.files))
        return expired.count

    def expired(self) -> int:
        """How many updates have been removed so far because they were too old."""
        return int(self._progress.get(EXPIRED, 0))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Tell whoever watches, when the block is left, how many updates were removed in it for their age."""
        before = self.expired()
        yield
        _announce_expired(self.expired() - before)

    def erase(self, record: WithdrawalRecord) -> str:
        """Make what was kept of the withdrawn sites unreadable for good, wherever copies of it are.

        Their files must be gone already: what is left of them on the disk, in snapshots and in backups cannot
        be decrypted afterwards.

        Returns
        -------
        What was done and what could not be, in words.

        Raises
        ------
        EncryptionError
            If a key cannot be destroyed.
        """
        unreached = self.store.erase(
            record.sites, record.id, patients=record.patients or 0 if record.site_stays else 0
        )
        self._announce_copies(unreached)
        done = "contributions erased, keys destroyed"
        if unreached:
            done += f"; copies of the keys not reached: {', '.join(unreached)}"
        emptied = self._state.scrub()
        if not emptied:
            done += "; the database's log could not be emptied, and is at the next start"
        copies = len(self.store.copies())
        note_keys_destroyed(
            self._state, record.id, copies=copies, unreached=len(unreached), log_emptied=emptied
        )
        return done

    @staticmethod
    def _announce_copies(unreached: list[str]) -> None:
        if unreached:
            announce(
                Event(
                    "notice",
                    f"Copies of the keys could not be brought up to date: {', '.join(unreached)}. They may "
                    "hold keys of sites that were erased: let the server reach them, or destroy them and say "
                    "`reconsent keys forget`.",
                )
            )


def _announce_expired(count: int) -> None:
    """Tell whoever watches that ``count`` updates were removed because they were too old."""
    if count:
        announce(Event("notice", f"{count} kept updates were older than they may be, and were removed."))


def key_policy(consortium: ConsortiumConfig) -> KeyPolicy | None:
    """Where the consortium's master key is; ``None`` if nothing is to be sealed."""
    kept = consortium.contributions
    if kept.encryption == "none":
        return None
    return KeyPolicy(kept.encryption, kept.master_key, kept.wrap_command, kept.unwrap_command)


def cache_policy(consortium: ConsortiumConfig) -> CachePolicy:
    """What the consortium's server keeps of updates."""
    kept = consortium.contributions
    rounds = consortium.training.rounds
    return CachePolicy(
        damping=kept.damping,
        history_every=kept.history_every,
        history_dtype=kept.history_dtype,
        anchor_rounds=frozenset(max(1, round(share * rounds)) for share in kept.anchors),
        keep_rounds=kept.keep_rounds,
        keep_days=kept.keep_days,
    )


def expire_between_runs(path: Path, consortium: ConsortiumConfig) -> int | None:
    """Remove updates that are too old while no run does so by itself; it does at its start and every round.

    Returns
    -------
    How many; ``None`` if a run is under way, or there is no state yet.

    Raises
    ------
    StateError
        If the state cannot be used, as on a full disk.
    """
    if not (path / "contributions").is_dir():
        return None
    try:
        state = StateDirectory.open(path, clearing=True)
    except StateInUseError:
        return None
    with state:
        safekeeping = Safekeeping(state, consortium)
        cache = ContributionCache(
            state.contributions_dir, state.session, cache_policy(consortium), line=MAIN, keys=safekeeping.keys
        )
        with state.session() as session:
            count = safekeeping.expire(cache, session)
        state.scrub()
    return count
