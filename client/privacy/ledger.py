"""The site's own ledger of the privacy it has spent, on its own disk: one JSON line a round.

It is written before the work begins, never after: a crash may spend for nothing, but nothing can be released
unspent. Lines are only added; the server cannot reach it, so that restoring the server's state, or training
under a new run, gives nothing back. It holds numbers only, no data and no names of patients.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.append_only import append_line, locked
from client.site_log import log_path
from reconsent.environment import LEDGERS_VARIABLE
from reconsent.errors import PrivacyError
from reconsent.files import sync_directory


class PrivacyLedgerError(PrivacyError):
    """The site's privacy ledger cannot be used, so the site must not train."""


@dataclass(frozen=True, slots=True)
class Expense:
    """What one round spends.

    Attributes
    ----------
    unit
        Whom DP-SGD protects as one, ``patient`` or ``slice``; empty without DP-SGD.
    noise_multiplier, sample_rate, steps
        Of DP-SGD; 0 without it.
    site_noise_multiplier
        Of the whole update; 0 without site-level noise.
    at_server
        Whether the server was to add that noise: then it covers nothing towards the server. ``None`` in a
        line of a release that did not say.
    round
        Number the server gave the round.
    replay
        In a simulation, where the noise comes from a seed, what the round's result is a function of: the same
        again releases the same bits, and costs nothing. Empty in a deployment.
    """

    unit: str = ""
    noise_multiplier: float = 0.0
    sample_rate: float = 0.0
    steps: int = 0
    site_noise_multiplier: float = 0.0
    at_server: bool | None = None
    round: int = 0
    replay: str = ""


class PrivacyLedger:
    """An append-only file of expenses of one site in one consortium.

    Parameters
    ----------
    path
        The file; made when the first expense is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def expenses(self) -> list[Expense]:
        """All of them, oldest first; none if there is no file yet.

        Raises
        ------
        PrivacyLedgerError
            If it cannot be read, or a line is missing or altered.
        """
        try:
            return _parsed(self.path.read_bytes(), self.path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unusable(error) from None

    def spend(self, expense: Expense, allow: Callable[[Sequence[Expense]], None]) -> list[Expense]:
        """Write ``expense`` if ``allow`` agrees; when this returns, it is on the disk.

        Parameters
        ----------
        expense
            Of the round that is to begin.
        allow
            Gets all expenses with the new one last, and raises if that is too much. No other process can
            spend in between.

        Returns
        -------
        All expenses, the new one included.

        Raises
        ------
        PrivacyLedgerError
            If the ledger cannot be read or written.
        """
        make_ledger_directory(self.path.parent)
        try:
            with locked(self.path) as descriptor:
                before = _parsed(self.path.read_bytes(), self.path)
                if expense.replay and any(old.replay == expense.replay for old in before):
                    return before
                after = [*before, expense]
                allow(after)
                at = datetime.now(UTC).isoformat(timespec="milliseconds")
                entry = {"number": len(after), "at": at, **asdict(expense)}
                append_line(descriptor, (json.dumps(entry) + "\n").encode())
                return after
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> PrivacyLedgerError:
        return PrivacyLedgerError(
            f"The privacy ledger {self.path} cannot be used: {error}.",
            "Make room or mend its permissions; until then this site trains nothing.",
        )


def make_ledger_directory(directory: Path) -> None:
    """Make the directory (mode 700) and what is above it; when this returns, their entries are on the disk.

    Raises
    ------
    PrivacyLedgerError
        If it cannot be made.
    """
    missing = [place for place in (directory, *directory.parents) if not place.exists()]
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in missing:
            # Otherwise a power cut could take the new directory, and with it a ledger that was flushed.
            sync_directory(place.parent)
    except OSError as error:
        raise PrivacyLedgerError(
            f"The directory of privacy ledgers {directory} cannot be made: {error}.",
            "Make it, or mend the permissions above it; until then this site trains nothing.",
        ) from None


def ledger_path(
    node_config: Mapping[str, object],
    consortium: str,
    site: str,
    account: str = "",
    environment: Mapping[str, str] = os.environ,
) -> Path:
    """Where a site's ledger is: one file a consortium and site in the directory for ledgers.

    That is ``RECONSENT_PRIVACY_LEDGERS``, or ``ledgers`` of the node configuration, or ``privacy`` beside the
    site's log, which by default is beside its policy. All are set at the site. Not beside a policy that is
    elsewhere than the log: it often lies where the node cannot write.

    Parameters
    ----------
    account
        Of a simulation, whose oracle is trained beside the consortium: what it spends is counted by itself.

    Raises
    ------
    PrivacyLedgerError
        If the site has no such place.
    """
    named = environment.get(LEDGERS_VARIABLE) or node_config.get("ledgers")
    beside = log_path(node_config, environment)
    if not named and beside is None:
        raise PrivacyLedgerError(
            f"Site '{site}' has no place for its privacy ledger, so it cannot keep to a budget.",
            f"Give the site a log or a policy, or set {LEDGERS_VARIABLE} to a directory that is kept.",
        )
    directory = Path(str(named)) if named else Path(str(beside)).parent / "privacy"
    return directory / f"{consortium}--{site}{f'--{account}' if account else ''}.jsonl"


def _parsed(content: bytes, path: Path) -> list[Expense]:
    *lines, rest = content.split(b"\n")
    # A torn last line was never confirmed to anybody: its round has not begun. It has no end, and is
    # overwritten by none, as the next line begins on a line of its own, so it may also lie right before the
    # next number. Any other line that cannot be read was confirmed once: skipped, it would give budget back.
    found: list[Expense] = []
    damaged = 0
    for position, line in enumerate([*lines, rest] if rest else lines, start=1):
        entry = _entry(line)
        if entry is None:
            if damaged:
                raise _damaged(path, damaged)
            damaged = position
            continue
        if entry.pop("number", None) != len(found) + 1:
            raise PrivacyLedgerError(
                f"The privacy ledger {path} lacks an entry before line {position}, or it was altered.",
                "Restore it from a backup that is newer; an older one would give spent budget back.",
            )
        damaged = 0
        entry.pop("at", None)
        try:
            found.append(Expense(**entry))
        except TypeError:
            raise PrivacyLedgerError(
                f"Line {position} of the privacy ledger {path} is not one this release wrote.",
                "Use the release that wrote it, or a newer one.",
            ) from None
    if damaged and not (rest and damaged == len(lines) + 1):
        raise _damaged(path, damaged)
    return found


def _damaged(path: Path, position: int) -> PrivacyLedgerError:
    return PrivacyLedgerError(
        f"Line {position} of the privacy ledger {path} is damaged.",
        "Restore it from a backup that is newer; an older one would give spent budget back.",
    )


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
