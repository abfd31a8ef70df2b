"""What the ledger is told of contributions: who read them, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from sqlalchemy.orm import Session

from server.persistence import Ledger, StateDirectory, WithdrawalActs, WithdrawalRecord, Withdrawals
from server.persistence.ledger_entries import (
    CONTRIBUTIONS_DROPPED,
    CONTRIBUTIONS_ERASED,
    CONTRIBUTIONS_READ,
    contributions_body,
)


class ContributionEntries:
    """Writes the entries about contributions that a withdrawal reads, drops and erases.

    Parameters
    ----------
    state
        Open for writing.
    """

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._ledger = Ledger(state)

    def reading(self, record: WithdrawalRecord, method: str) -> Callable[[str], None]:
        """For :meth:`ContributionCache.watched`: an entry a site, before the first of it is handed out."""
        told: set[str] = set()

        def note(site: str) -> None:
            if site not in told:
                with self._state.session() as session:
                    body = contributions_body(record.id, [site], method=method, session=session)
                    self._ledger.append(CONTRIBUTIONS_READ, body, session=session)
                told.add(site)

        return note

    def erasing(self, record: WithdrawalRecord, sites: Collection[str], session: Session) -> None:
        """What is kept of ``sites`` is about to be erased; to be called before it is."""
        body = contributions_body(record.id, sites, session=session)
        self._ledger.append(CONTRIBUTIONS_ERASED, body, session=session)

    def dropped(self, sites: Collection[str], round_: int, files: int, session: Session) -> None:
        """The model went back to where it was after ``round_``, and ``files`` of later ones are dropped."""
        body = {"withdrawn": sorted(sites), "after-round": round_, "files": files}
        if (withdrawal := self._begun(set(sites), session)) is not None:
            body["withdrawal"] = withdrawal
        self._ledger.append(CONTRIBUTIONS_DROPPED, body, session=session)

    def _begun(self, sites: set[str], session: Session) -> str | None:
        """The last withdrawal of just these sites that has begun to unlearn; a later one is only filed."""
        acts = WithdrawalActs(self._state)
        for record in reversed(Withdrawals(self._state).all(session=session)):
            if set(record.sites) == sites and acts.of(record.id, "policy", session=session):
                return record.id
        return None
