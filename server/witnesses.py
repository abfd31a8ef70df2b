"""The sites as witnesses of the ledger: each is sent what it needs to see that the ledger only grew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from server.persistence import Ledger
from strategies import messages as msg
from strategies.outcomes import SiteOutcome

MOST_GUESSES = 16
"""Sizes that a site may have seen and has not confirmed; a site beyond that is asked."""


class Witnesses:
    """Knows how much of the ledger each site may have seen, by what the sites say.

    What they may have seen is in memory only: sites say where they stand when they are asked who they are, as
    every run begins with, and with each reply. What a site confirmed is kept, to verify the ledger with.

    Parameters
    ----------
    ledger
        The server's.
    simulated
        In a simulation nothing is sent: nobody keeps it.
    """

    def __init__(self, ledger: Ledger, *, simulated: bool) -> None:
        self._ledger = ledger
        self._simulated = simulated
        self._seen: dict[str, list[int]] = {}
        # The last size, its signed checkpoint, and the key: the same for every site of a round.
        self._newest: tuple[int, str, str] = (0, "", "")

    def introduced(self, site: str, told: Mapping[str, int | float | str | bool]) -> None:
        """Note where ``site`` stands, by what it told when asked who it is."""
        size = told.get(msg.WITNESSED)
        self._seen[site] = [size] if isinstance(size, int) and size > 0 else []

    def told(self, site: str) -> dict[str, int | float | str | bool]:
        """What a training message to ``site`` says of the ledger; nothing in a simulation.

        Raises
        ------
        LedgerError
            If the ledger was altered since it was last looked at.
        """
        if self._simulated:
            return {}
        size, envelope, key = self._checkpoint()
        if not size:
            return {}
        seen = self._seen.setdefault(site, [])
        # A site that has seen more than there is will say so itself; it cannot be proved anything.
        proofs = {old: self._ledger.consistency(old, new=size) for old in seen if old <= size}
        if size not in seen:
            seen.append(size)
            # What was confirmed stays; of what was only sent, the newest.
            del seen[1:-MOST_GUESSES]
        return {
            msg.CHECKPOINT: envelope,
            msg.CHECKPOINT_KEY: key,
            msg.CHECKPOINT_PROOFS: json.dumps(proofs),
        }

    def _checkpoint(self) -> tuple[int, str, str]:
        size = self._ledger.size()
        if size != self._newest[0]:
            key = self._ledger.public_key()
            known = "" if key is None else key.raw.hex()
            self._newest = (size, json.dumps(self._ledger.envelope(size)) if size else "", known)
        return self._newest

    def answered(self, outcomes: Iterable[SiteOutcome]) -> None:
        """Note where the sites stand, by their replies in a round; what they confirm is kept in the state."""
        confirmed = {}
        for outcome in outcomes:
            size = outcome.metrics.get(msg.WITNESSED, 0.0)
            known = msg.unproven_size(outcome.reason) if outcome.outcome != "ok" else None
            if known is not None:
                self._seen[outcome.site] = [known]
            elif outcome.outcome == "ok" and size in self._seen.get(outcome.site, ()):
                self._seen[outcome.site] = [int(size)]
                confirmed[outcome.site] = int(size)
        self._ledger.note_witnessed(confirmed)
