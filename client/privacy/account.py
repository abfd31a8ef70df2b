"""All that a site has spent: its ledgers of every consortium, and what its log says of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from client.append_only import locked
from client.privacy.ledger import (
    Expense,
    PrivacyLedger,
    PrivacyLedgerError,
    ledger_path,
    make_ledger_directory,
)
from client.site_log import SiteLog, entry_of, log_path

PAID = "paid"
"""The event of a line of the site's log: a round was written to a ledger."""


class SiteAccount:
    """The ledger of one consortium, beside those of the site's others, held to what the site's log says.

    After each expense the log gets a line with the number of it. So a ledger that was cut at its end, which
    it cannot show itself, or that is gone, is refused, as long as the log is there. The line comes after the
    expense: a crash in between leaves a ledger that is longer than the log says, which is no harm.

    Parameters
    ----------
    ledger
        Of the consortium that trains.
    ending
        With which the name of each ledger of this site ends; empty if there are no others.
    log
        Of the site; ``None`` if it keeps none, or is simulated.
    """

    def __init__(self, ledger: PrivacyLedger, *, ending: str = "", log: Path | None = None) -> None:
        self.ledger = ledger
        self._ending = ending
        self._log = log

    @classmethod
    def of(
        cls,
        node_config: Mapping[str, object],
        consortium: str,
        site: str,
        account: str = "",
        environment: Mapping[str, str] = os.environ,
        *,
        simulated: bool = False,
    ) -> Self:
        """That of a site; see :func:`~client.privacy.ledger.ledger_path`.

        Raises
        ------
        PrivacyLedgerError
            If the site has no place for its ledger.
        """
        path = ledger_path(node_config, consortium, site, account, environment)
        # Simulated sites may share a log, and a run that is thrown away with its ledgers leaves it behind.
        log = None if simulated else log_path(node_config, environment)
        return cls(PrivacyLedger(path), ending=path.name.removeprefix(consortium), log=log)

    def expenses(self) -> list[Expense]:
        """Of this consortium, oldest first.

        Raises
        ------
        PrivacyLedgerError
            If the ledger cannot be read, or has fewer than the site's log says.
        """
        return self._held_to(self._told(), self.ledger)

    def elsewhere(self) -> dict[str, list[Expense]]:
        """Of the site in its other consortia, by the name of the ledger without its ending ``.jsonl``.

        Raises
        ------
        PrivacyLedgerError
            If one of them cannot be read, or has fewer than the site's log says.
        """
        if not self._ending:
            return {}
        told, directory = self._told(), self.ledger.path.parent
        names = {path.name for path in directory.glob(f"*{glob.escape(self._ending)}")}
        names |= {f"{name}.jsonl" for name in told if f"{name}.jsonl".endswith(self._ending)}
        found = {}
        for name in sorted(names - {self.ledger.path.name}):
            ledger = PrivacyLedger(directory / name)
            if expenses := self._held_to(told, ledger):
                found[ledger.path.stem] = expenses
        return found

    def of_other_names(self) -> list[str]:
        """Ledgers in the same directory that are not counted: of a site that is called otherwise."""
        directory = self.ledger.path.parent
        return sorted(path.stem for path in directory.glob("*.jsonl") if not path.name.endswith(self._ending))

    def spend(self, expense: Expense, allow: Callable[[Sequence[Expense]], None]) -> list[Expense]:
        """As :meth:`PrivacyLedger.spend`, alone in all ledgers of the directory; then tell the log.

        Raises
        ------
        PrivacyLedgerError
            If a ledger cannot be used, or has fewer expenses than the site's log says.
        LogError
            If the log cannot be written: the round must not begin, and is paid for.
        """
        directory = self.ledger.path.parent
        make_ledger_directory(directory)
        try:
            with locked(directory / ".lock"):
                known = len(self.expenses())
                after = self.ledger.spend(expense, allow)
        except OSError as error:
            raise PrivacyLedgerError(
                f"The directory of privacy ledgers {directory} cannot be used: {error}.",
                "Mend its permissions; until then this site trains nothing.",
            ) from None
        if self._log is not None and len(after) > known:
            SiteLog(self._log).append(PAID, {"account": self.ledger.path.stem, "number": len(after)})
        return after

    def _told(self) -> dict[str, int]:
        """Ledger's name → expenses in it by the log; read before the ledgers, which are written first."""
        told: dict[str, int] = {}
        if self._log is None:
            return told
        try:
            with self._log.open("rb") as file:
                for line in file:
                    if PAID.encode() not in line:
                        continue
                    entry = entry_of(line)
                    name, number = entry.get("account"), entry.get("number")
                    if entry.get("event") == PAID and isinstance(name, str) and isinstance(number, int):
                        told[name] = max(number, told.get(name, 0))
        except FileNotFoundError:
            return told
        except OSError as error:
            raise PrivacyLedgerError(
                f"The site's log {self._log} cannot be read: {error}.", "Mend its permissions."
            ) from None
        return told

    def _held_to(self, told: Mapping[str, int], ledger: PrivacyLedger) -> list[Expense]:
        found = ledger.expenses()
        if len(found) < (paid := told.get(ledger.path.stem, 0)):
            raise PrivacyLedgerError(
                f"The privacy ledger {ledger.path} has {len(found)} rounds, and the site's log {self._log} "
                f"says that {paid} were paid for: it was cut, deleted, or moved.",
                "Put it back. If it is lost for good, an officer of the site accepts that by beginning a new "
                "log; keep the old one, and lower the limits by what it says was spent.",
            )
        return found
