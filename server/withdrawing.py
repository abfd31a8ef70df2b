"""Carries a withdrawal through its states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from reconsent.errors import (
    BarredError,
    ContributionError,
    GuardError,
    ReconsentError,
    RoundError,
)
from reconsent.faults import reached
from reconsent.log_lines import belonging
from server.accountability import Accountability
from server.beyond_limits import notice_of
from server.bookkeeping import MAIN
from server.contribution_entries import ContributionEntries
from server.events import Event, announce
from server.persistence import Enrolments, WithdrawalRecord, Withdrawals
from server.unlearning_run import ELSEWHERE, MEASURED, UnlearningRun
from unlearning.contributions import discard
from unlearning.request import PATIENTS_ONLY, RequestDetails
from unlearning.spool import UpdateSpool
from unlearning.withdrawal import WithdrawalState

if TYPE_CHECKING:
    from server.coordinator import Coordinator

_OVERTAKEN = "the whole site was taken out of the model, its patients with it"
_WAITS = "their site withdraws as a whole; it waits for what becomes of that"
_OWN_AFFAIR = (RoundError, ContributionError)

_ON_THE_WAY = (
    WithdrawalState.RECEIVED,
    WithdrawalState.RESTRICTED,
    WithdrawalState.UNLEARNING,
    WithdrawalState.VERIFYING,
    WithdrawalState.PROPAGATING,
)


class Withdrawing:
    """Takes sites out: bars them, unlearns them, revokes the models they shaped, erases what was kept.

    Each step is recorded before the next begins, and can be repeated; so a run that was killed, or that
    failed, is gone on with by the next.

    Parameters
    ----------
    coordinator
        Whose rounds, books and cache are used.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self.register = Withdrawals(coordinator.state)
        self.accountability = Accountability(
            coordinator.state, coordinator.consortium, fab_sha256=coordinator.fab_sha256
        )
        self._entries = ContributionEntries(coordinator.state)
        self._aside: set[str] = set()
        """Requests of patients that this run could not carry out; it goes on without them."""
        self.run = UnlearningRun(coordinator, self.register, self.accountability, self._entries)

    def carry_out(self, sites: Sequence[str], patients: int = 0) -> WithdrawalRecord:
        """Carry a withdrawal out as far as it goes.

        Parameters
        ----------
        sites
            Who leaves, together.
        patients
            How many patients leave while their site, the only one named, stays; 0: whole sites.

        Returns
        -------
        The withdrawal, *completed*; or as it is if it was refused or cancelled, or is on legal hold: then
        nothing is unlearned, and whoever listens is told.

        Raises
        ------
        WithdrawalError
            If it cannot be accepted: a site is unknown, or none would remain.
        ReconsentError
            Whatever stopped it on its way; the withdrawal has *failed* with that reason, and the next run
            takes it up where it failed.
        """
        return self.go_on(self._filed(sites, patients))

    def due(self) -> list[WithdrawalRecord]:
        """Filed withdrawals on which there is something to be done now, oldest first.

        One that was filed for a later round is not among them until that round has been trained.
        """
        trained = self._of.books.log.count(MAIN, "train")
        return [
            record
            for record in self.register.open()
            if record.state is not WithdrawalState.LEGAL_HOLD
            and record.id not in self._aside
            and not self._waits(record)
            and (record.state is not WithdrawalState.RECEIVED or (record.at_round or 0) <= trained)
        ]

    def go_on(self, record: WithdrawalRecord) -> WithdrawalRecord:
        """Carry a filed withdrawal out; as :meth:`carry_out`."""
        with belonging(withdrawal=record.id, correlation=record.id):
            return self._gone_on(record)

    def _gone_on(self, record: WithdrawalRecord) -> WithdrawalRecord:
        if record.state is WithdrawalState.FAILED and record.failed_in is not None:
            record = self._move(record, record.failed_in, "taken up again")
        try:
            while (step := self._next_step(record.state)) is not None:
                if self._waits(record):
                    self.run.abandon(record)
                    announce(Event("notice", f"Withdrawal {record.id} of {record.whom}: {_WAITS}."))
                    return record
                record = step(record)
        except ReconsentError as error:
            current = self.register.get(record.id)
            if current.state in ELSEWHERE and not isinstance(error, GuardError):
                # Cancelled, refused or put on hold by somebody while it was carried out: that is no failure.
                self.run.drop_stale()
                self._explain(current)
                return current
            if current.state.resumable:
                # On a full disk this cannot be noted; it is then found on its way by the next run.
                with suppress(ReconsentError):
                    self._move(current, WithdrawalState.FAILED, str(error))
            if record.site_stays and not self._of.simulated and isinstance(error, _OWN_AFFAIR):
                # What one site must see to, as a name in its policy, does not stop everybody's training.
                self.run.abandon(record)
                self._aside.add(record.id)
                announce(Event("notice", f"Withdrawal {record.id} of {record.whom} is left aside: {error}"))
                return self.register.get(record.id)
            raise
        if record.state is not WithdrawalState.COMPLETED:
            self._explain(record)
        return record

    # ---- one step from each state ----------------------------------------------------------------------

    def _next_step(self, state: WithdrawalState) -> Callable[[WithdrawalRecord], WithdrawalRecord] | None:
        steps = (self._restrict, self._begin, self._unlearn, self._verified, self._propagate)
        return dict(zip(_ON_THE_WAY, steps, strict=True)).get(state)

    def _restrict(self, record: WithdrawalRecord) -> WithdrawalRecord:
        what = (
            "their site is to leave them out"
            if record.site_stays
            else "barred everywhere; contributions frozen"
        )
        moved = self._move(record, WithdrawalState.RESTRICTED, what)
        reached("withdrawal-restricted")
        return moved

    def _begin(self, record: WithdrawalRecord) -> WithdrawalRecord:
        sites = frozenset(record.sites)
        if self.run.bystanders(sites, self.run.latest()) == sites:
            return self._move(record, WithdrawalState.PROPAGATING, "took part in no round")
        if self._overtaken(record):
            return self._move(record, WithdrawalState.PROPAGATING, _OVERTAKEN)
        # Of another request about this site, which was not finished and is not due any more.
        self.run.abandon(record)
        if self.register.get(record.id).in_part:
            return self._move(record, WithdrawalState.PROPAGATING, "granted in part: the models stay")
        if record.site_stays:
            self.run.check(record)
        self.accountability.fix_policy(record, self.run.latest())
        moved = self._move(record, WithdrawalState.UNLEARNING, f"by {self._of.consortium.unlearning.method}")
        reached("unlearning-begun")
        return moved

    def _unlearn(self, record: WithdrawalRecord) -> WithdrawalRecord:
        while True:
            if self._overtaken(record):
                return self._move(record, WithdrawalState.VERIFYING, _OVERTAKEN)
            if self._waits(record):
                return record
            self._of.membership.wait(self._of.books.log.last_round(MAIN) + 1)
            try:
                with self._of.safekeeping.counting():
                    self.run.unlearn(record)
                break
            except BarredError as error:
                # Another site was barred after its update was averaged: gone on with from the last round.
                announce(Event("notice", f"A round is repeated: {error.problem}"))
            except RoundError as error:
                if self._waits(record):
                    return record
                if self._of.simulated or self._of.membership.enough():
                    raise
                # Sites left in the middle of it: whoever comes back is waited for.
                announce(Event("notice", str(error)))
        return self._move(record, WithdrawalState.VERIFYING, MEASURED)

    def _done(self, record: WithdrawalRecord) -> bool:
        """Whether there was a model that has unlearned it."""
        return any(set(record.marks) <= set(v.forgotten) for v in self._of.books.registry.all(MAIN))

    def _overtaken(self, record: WithdrawalRecord) -> bool:
        """Whether the whole site was taken out of the model after some of its patients asked."""
        return (
            record.site_stays
            and not self._done(record)
            and any(
                other.state is WithdrawalState.COMPLETED
                and not (other.site_stays or other.in_part)
                and set(record.sites) <= set(other.sites)
                and other.closed_at is not None
                and other.closed_at >= record.filed_at
                for other in self.register.all()
            )
        )

    def _waits(self, record: WithdrawalRecord) -> bool:
        """Whether patients must wait for what becomes of their site, which withdraws as well."""
        return (
            record.site_stays
            and bool(set(record.sites) & self._of.membership.barred())
            and not self._done(record)
            and not self._overtaken(record)
        )

    def _verified(self, record: WithdrawalRecord) -> WithdrawalRecord:
        beyond = self.accountability.note_figures(record)
        note = "revoking models, erasing contributions"
        if beyond:
            announce(Event("notice", notice_of(record.id, beyond)))
            note += f"; {len(beyond)} figures of remaining sites are beyond the limit fixed before"
        return self._move(record, WithdrawalState.PROPAGATING, note)

    def _propagate(self, record: WithdrawalRecord) -> WithdrawalRecord:
        state, books, cache = self._of.state, self._of.books, self._of.cache
        if self._overtaken(record):
            return self._move(record, WithdrawalState.COMPLETED, _OVERTAKEN)
        reason = f"holds what {record.whom} contributed (withdrawal {record.id})"
        with state.session() as session:
            revoked = [
                version
                for site in (() if record.in_part else record.sites)
                for version in books.registry.revoke_descendants_of_site(
                    site, reason, but=record.marks if record.site_stays else (), session=session
                )
            ]
            self.accountability.note_erasure(record, revoked, session)
            self._entries.erasing(record, record.sites, session)
            files = cache.erase(set(record.sites), session=session)
            reached("erasure-before-commit")
            state.after_commit(session, lambda: reached("erasure-committed"))
            state.after_commit(session, lambda: discard(files))
        # Only now: a withdrawal that says it is completed must have no file left, nor one of a round that
        # was broken off.
        cache.sweep()
        books.registry.sweep()
        UpdateSpool(state.path / "spool").clear()
        what = "the models stay" if record.in_part else "unlearned"
        done = self._of.safekeeping.erase(record)
        reached("keys-destroyed")
        if record.cooperating and not record.site_stays:
            # Its part is done: from now on its keys are refused like those of a site that left gone.
            for site in record.sites:
                Enrolments(state).revoke(site, f"withdrawal {record.id}")
        moved = self._move(record, WithdrawalState.COMPLETED, f"{what}; {done}")
        reached("withdrawal-completed")
        return moved

    def _move(self, record: WithdrawalRecord, state: WithdrawalState, note: str) -> WithdrawalRecord:
        moved = self.register.advance(record.id, state, note=note)
        announce(Event("withdrawal", f"Withdrawal of {record.whom}: {state.value} ({note})"))
        return moved

    def _filed(self, sites: Sequence[str], patients: int) -> WithdrawalRecord:
        """The withdrawal of just these sites: the last one, whatever became of it, or a new one."""
        for record in reversed(self.register.all()):
            if set(record.sites) == set(sites) and record.site_stays == bool(patients):
                return record
        simulated = self._of.simulated
        record = self.register.file(
            sites,
            reason="exercised in a simulation" if simulated else "named in the consortium file",
            requested_by="simulation" if simulated else "operator",
            method=self._of.consortium.unlearning.method,
            at_round=self._of.books.log.count(MAIN, "train"),
            simulated=simulated,
            cooperating=any(
                planned.answering and set(planned.sites) == set(sites)
                for planned in self._of.consortium.withdrawals
            ),
            details=RequestDetails(scope=PATIENTS_ONLY, patients=patients) if patients else None,
        )
        announce(Event("withdrawal", f"Withdrawal of {record.whom}: received ({record.id})"))
        return record

    def _explain(self, record: WithdrawalRecord) -> None:
        why = self.register.events(record.id)[-1].note
        barred = record.state is WithdrawalState.LEGAL_HOLD
        if record.site_stays:
            text = f"Withdrawal {record.id} of {record.whom} is {record.state.value} ({why})."
            announce(Event("notice", f"{text} Nothing is unlearned."))
            return
        fate = (
            "The sites stay barred, and nothing is unlearned until the hold ends"
            if barred
            else ("Nothing is unlearned, and the sites take part again")
        )
        names = ", ".join(record.sites)
        announce(
            Event("notice", f"Withdrawal {record.id} of {names} is {record.state.value} ({why}). {fate}.")
        )
