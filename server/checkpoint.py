"""Where an unlearning stands, so that a killed one goes on at the round it was in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from sqlalchemy.orm import Session

from reconsent.errors import StateError, WithdrawalError
from reconsent.files import AtomicWrites, Part
from server.persistence import RunProgress, StateDirectory
from server.persistence.state import explaining_os_errors
from server.persistence.tensors import content_hash, pack, unpack
from strategies.unlearning_strategy import StrategyState, UnlearningStrategy
from unlearning.sealing import SUFFIX, place, seal, unseal
from unlearning.site_keys import SiteKeys

KEY = "unlearning"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An unlearning under way.

    Attributes
    ----------
    sites, method, settings
        Who is unlearned, and how.
    start
        Id of the model version it began from.
    first_round
        Number of its first round.
    done
        Rounds committed.
    version
        Id of the model version after them.
    state
        The strategy's numbers, and for each of its vectors the SHA-256 that names its file.
    """

    sites: tuple[str, ...]
    method: str
    settings: dict[str, Any]
    start: str
    first_round: int
    done: int
    version: str
    state: dict[str, Any]

    def check(self, strategy: UnlearningStrategy, settings: dict[str, Any]) -> Self:
        """Refuse to go on by other means than those it was begun with.

        Raises
        ------
        WithdrawalError
            If method or settings differ.
        """
        if (self.method, self.settings) != (strategy.name, settings):
            raise WithdrawalError(
                f"The unlearning of {', '.join(self.sites)} was begun by {self.method} with settings "
                f"{self.settings or '(none)'}, {self.done} rounds are done, and now it is to go on by "
                f"{strategy.name} with {settings or '(none)'}.",
                "Put the former method and settings back in [unlearning], and let it end.",
            )
        return self


class Checkpoints:
    """Keeps the checkpoint of the one unlearning that can be under way.

    The vectors of a strategy may be made of what the withdrawn site contributed. Their files go when the
    unlearning has ended; what a crash leaves of them, :meth:`sweep` removes.

    Parameters
    ----------
    state
        Open, writable state directory.
    keys
        The sites' keys; vectors are sealed by that of the first site that leaves, so they go with it.
    """

    def __init__(self, state: StateDirectory, keys: SiteKeys | None = None) -> None:
        self._state = state
        self._keys = keys
        self._progress = RunProgress(state)
        self._directory = state.path / "unlearning"

    def sites(self) -> set[str]:
        """Whose unlearning is under way; empty if nobody's is."""
        saved = self._progress.get(KEY)
        return set() if saved is None else set(saved["sites"])

    def load(self, sites: frozenset[str]) -> Checkpoint | None:
        """The checkpoint of the unlearning of ``sites``; ``None`` if it has not begun.

        Raises
        ------
        WithdrawalError
            If that of other sites is under way.
        """
        saved = self._progress.get(KEY)
        if saved is None:
            return None
        found = Checkpoint(**{**saved, "sites": tuple(saved["sites"])})
        if set(found.sites) != sites:
            raise WithdrawalError(
                f"The unlearning of {', '.join(found.sites)} is under way, so that of "
                f"{', '.join(sorted(sites))} cannot begin.",
                "Let the first one end.",
            )
        return found

    def begin(
        self,
        sites: frozenset[str],
        strategy: UnlearningStrategy,
        settings: dict[str, Any],
        start: str,
        first_round: int,
        *,
        session: Session,
    ) -> Checkpoint:
        """Note that an unlearning begins, with what the strategy has planned if it plans."""
        kept = self._kept(strategy.state(), min(sites)) if strategy.planned else {}
        checkpoint = Checkpoint(
            tuple(sorted(sites)), strategy.name, settings, start, first_round, 0, start, kept
        )
        self._put(checkpoint, session)
        return checkpoint

    def advance(
        self, checkpoint: Checkpoint, version: str, state: StrategyState, *, session: Session
    ) -> Checkpoint:
        """Note one more round, in the transaction that commits it."""
        kept = self._kept(state, checkpoint.sites[0])
        advanced = replace(checkpoint, done=checkpoint.done + 1, version=version, state=kept)
        self._put(advanced, session)
        return advanced

    def state_of(self, checkpoint: Checkpoint) -> StrategyState:
        """The strategy's state after the last committed round.

        Raises
        ------
        StateError
            If a file of it is missing or altered.
        """
        return {
            name: self._read(value) if isinstance(value, dict) else value
            for name, value in checkpoint.state.items()
        }

    def end(self, *, session: Session) -> None:
        """Drop the checkpoint, and its files once ``session`` is committed."""
        self._progress.delete(KEY, session=session)
        self._state.after_commit(session, self.sweep)

    def sweep(self) -> None:
        """Remove files that the checkpoint does not name."""
        saved = self._progress.get(KEY) or {"state": {}}
        named = {self._path(v).name for v in saved["state"].values() if isinstance(v, dict)}
        for file in self._directory.glob("*"):
            if file.name not in named:
                file.unlink(missing_ok=True)

    def _put(self, checkpoint: Checkpoint, session: Session) -> None:
        value = {name: getattr(checkpoint, name) for name in checkpoint.__slots__}
        self._progress.put(KEY, {**value, "sites": list(checkpoint.sites)}, session=session)
        self._state.after_commit(session, self.sweep)

    def _kept(self, state: StrategyState, site: str) -> dict[str, Any]:
        return {
            name: self._write(value, site) if isinstance(value, np.ndarray) else value
            for name, value in state.items()
        }

    def _write(self, vector: np.ndarray, site: str) -> dict[str, str]:
        arrays = {"vector": vector}
        named = {"sha256": content_hash(arrays)}
        parts: Iterable[Part] = [pack(arrays)]
        if self._keys is not None:
            named["key"] = site
            parts = seal(self._keys.key(site), _place(named), parts)
        path = self._path(named)
        if not path.exists():
            with explaining_os_errors(f"The checkpoint {path}"), AtomicWrites() as writes:
                writes.write(path, parts)
        return named

    def _read(self, named: Mapping[str, str]) -> np.ndarray:
        path = self._path(named)
        remedy = "Restore it from a backup of the state directory."
        try:
            with explaining_os_errors(f"The checkpoint {path}"):
                content = self._content(path, named)
            arrays = unpack(content)
        except ValueError:
            raise StateError(f"The checkpoint {path} is truncated or altered.", remedy) from None
        if content_hash(arrays) != named["sha256"]:
            raise StateError(f"The checkpoint {path} is altered.", remedy)
        return arrays["vector"]

    def _content(self, path: Path, named: Mapping[str, str]) -> bytes:
        if "key" not in named:
            return path.read_bytes()
        if self._keys is None:
            raise StateError(
                f"The checkpoint {path} is encrypted.",
                "Set encryption in [contributions] back to what it was.",
            )
        return bytes(unseal(path, self._keys.existing(named["key"]), _place(named)))

    def _path(self, named: Mapping[str, str]) -> Path:
        return self._directory / f"{named['sha256']}{SUFFIX if 'key' in named else '.safetensors'}"


def _place(named: Mapping[str, str]) -> bytes:
    return place("checkpoint", named["key"], named["sha256"])
