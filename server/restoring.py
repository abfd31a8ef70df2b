"""What must be done to a restored state before a server may use it: who was erased since stays erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconsent.errors import ReconsentError, WithdrawalError
from server.checkpoint import Checkpoints
from server.names import MAIN
from server.persistence import Enrolments, Roster, SiteStatus, StateDirectory, Withdrawals
from unlearning.contributions import ContributionCache, discard
from unlearning.key_store import Erasure, KeyStore
from unlearning.request import PATIENTS_ONLY, RequestDetails
from unlearning.withdrawal import WithdrawalState


@dataclass(frozen=True, slots=True)
class Reapplied:
    """An erasure that the backup did not know of.

    Attributes
    ----------
    site
        Barred again, if it had left; its contributions removed from the restored state.
    former
        Id of the withdrawal by which it had been erased.
    withdrawal
        Id of the withdrawal that is to be carried out now; empty if none could be filed.
    problem
        Why not, in words.
    """

    site: str
    former: str
    withdrawal: str = ""
    problem: str = ""


def reapply_erasures(state: StateDirectory, store: KeyStore, erased: Sequence[Erasure]) -> list[Reapplied]:
    """Bar every site again that was erased after the backup was made, and file its withdrawal anew.

    One that only patients left is not barred; their withdrawal is filed anew.

    What the backup has of it cannot be decrypted (its key is no more) and is removed. The restored models
    still hold its part until the withdrawal is carried out; that needs a method without contributions, or
    an earlier model.

    Parameters
    ----------
    state
        The restored one, open for writing.
    store
        Its keys.
    erased
        Every erasure anybody knows of.
    """
    register, roster = Withdrawals(state), Roster(state)
    known = {record.id: record for record in register.all()}
    cache = ContributionCache(state.contributions_dir, state.session, line=MAIN)
    found = []
    for entry in erased:
        before = known.get(entry.withdrawal)
        if before is not None and before.state is WithdrawalState.COMPLETED:
            continue
        present = {e.site: e.status for e in roster.all()}
        if entry.site not in present:
            continue
        with state.session() as session:
            files = cache.erase({entry.site}, session=session)
            if not entry.patients:
                if present[entry.site] is SiteStatus.ACTIVE:
                    roster.bar([entry.site], session=session)
                Enrolments(state).revoke(entry.site, f"withdrawal {entry.withdrawal}", session=session)
        discard(files)
        found.append(_filed(register, entry))
    checkpoints = Checkpoints(state)
    if checkpoints.sites() & {entry.site for entry in found}:
        # Its vectors are sealed by a key that is no more; the unlearning begins anew.
        with state.session() as session:
            checkpoints.end(session=session)
    store.add_erased(erased)
    if store.sites is not None:
        gone = {entry.site for entry in found}
        store.sites.destroy(gone)
    return found


def _filed(register: Withdrawals, entry: Erasure) -> Reapplied:
    for record in register.open():
        if entry.site in record.sites and record.site_stays == bool(entry.patients):
            return Reapplied(entry.site, entry.withdrawal, record.id)
    try:
        record = register.file(
            [entry.site],
            reason=f"Erased at {entry.at} by withdrawal {entry.withdrawal}, which the restored backup "
            "does not know",
            requested_by="reconsent restore",
            restrict=True,
            cooperating=bool(entry.patients),
            details=RequestDetails(scope=PATIENTS_ONLY, patients=entry.patients) if entry.patients else None,
        )
    except WithdrawalError as error:
        return Reapplied(entry.site, entry.withdrawal, problem=error.problem)
    return Reapplied(entry.site, entry.withdrawal, record.id)


def unreadable(cache: ContributionCache, store: KeyStore) -> str:
    """Why sealed contributions of a restored state cannot be read, in words; empty if they can."""
    try:
        if store.sites is not None:
            store.sites.check()
        cache.upkeep.check_keys()
    except ReconsentError as error:
        return str(error)
    return ""
