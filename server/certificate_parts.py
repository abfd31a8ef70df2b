"""Parts of a certificate that are words: outcome, decisions, what is left, what is not shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.persistence import (
    Ledger,
    ModelRegistry,
    StateDirectory,
    WithdrawalActs,
    WithdrawalRecord,
    Withdrawals,
)
from server.persistence.ledger_entries import WITHDRAWAL
from server.residues import backups_before, keys_destroyed, purge_after, unfinished
from unlearning.certificate import statement as said
from unlearning.certificate.claim import ClaimLevel
from unlearning.certificate.evidence import About, Evidence
from unlearning.intake import NAMES, Intake
from unlearning.ledger.checkpoints import Checkpoint
from unlearning.withdrawal import WithdrawalState

_OUTCOMES: Mapping[WithdrawalState, said.Outcome] = {
    WithdrawalState.REFUSED: "refused",
    WithdrawalState.CANCELLED: "cancelled",
    WithdrawalState.LEGAL_HOLD: "legal_hold",
}
_BY_SERVER = ("server", "simulation")
_OFFICER_DECIDES = (
    WithdrawalState.REFUSED,
    WithdrawalState.CANCELLED,
    WithdrawalState.LEGAL_HOLD,
    WithdrawalState.RESTRICTED,
)


def outcome_of(withdrawal: WithdrawalRecord) -> said.Outcome:
    """What became of the request."""
    if withdrawal.state is WithdrawalState.COMPLETED:
        return "granted_in_part" if withdrawal.in_part else "granted"
    return _OUTCOMES.get(withdrawal.state, "pending")


def decisions_of(state: StateDirectory, withdrawal: WithdrawalRecord) -> tuple[said.Decision, ...]:
    """Steps and decisions, oldest first; reasons only where an officer decided, and nobody's name."""
    found = []
    for event in Withdrawals(state).events(withdrawal.id):
        decided = event.new_state in _OFFICER_DECIDES and event.actor not in _BY_SERVER
        on_receipt = (
            event.old_state is WithdrawalState.RECEIVED and event.new_state is WithdrawalState.RESTRICTED
        )
        reason = event.note if decided and not on_receipt else ""
        found.append(said.Decision(at=event.at, what=event.new_state.value, reason=reason))
    words = {"extended": "extended by two months", "in-part": "granted in part"}
    found += [
        said.Decision(at=act.at, what=words[act.kind], reason=str(act.body["reason"]))
        for act in WithdrawalActs(state).of(withdrawal.id, "extended", "in-part")
    ]
    found += [
        said.Decision(
            at=act.at,
            what="put on record how it came in",
            reason=_intake_words(act.body, withdrawal.intake.agreement),
        )
        for act in WithdrawalActs(state).of(withdrawal.id, "intake")
    ]
    return tuple(sorted(found, key=lambda decision: decision.at))


def _intake_words(body: Mapping[str, Any], number: str | None) -> str:
    """What was put on record after the filing, and what was there before.

    Of an agreement's number only the one that holds is repeated: what should not have been typed there must
    not be in a certificate for ever.
    """

    def words(suffix: str) -> dict[str, str]:
        said = Intake.read(**{name: body.get(f"{name}{suffix}") for name in NAMES}).words
        return {
            name: "another number" if name == "agreement" and value != number else value
            for name, value in said.items()
        }

    before = words("_before")
    return "; ".join(
        f"{NAMES[name]}: {value}" + (f" (before: {before[name]})" if name in before else "")
        for name, value in words("").items()
    )


def ledger_position(
    ledger: Ledger, withdrawal: WithdrawalRecord, checkpoint: Checkpoint | None
) -> said.LedgerPosition | None:
    """The newest entry about the withdrawal, with the proof that it is in the ledger as it was then."""
    own = [
        entry
        for entry in ledger.entries([WITHDRAWAL])
        if entry.body.get("withdrawal") == withdrawal.id
        and checkpoint is not None
        and entry.number <= checkpoint.size
    ]
    if checkpoint is None or not own:
        return None
    entry = own[-1]
    return said.LedgerPosition(
        size=checkpoint.size,
        root=checkpoint.root,
        entry=entry.number,
        entry_content=entry.content().decode(),
        inclusion=tuple(ledger.inclusion(entry.number, size=checkpoint.size)),
    )


def _overwrites(state: StateDirectory) -> bool:
    """Whether the database overwrites what is deleted."""
    return state.engine.url.get_backend_name() == "sqlite"


def how_erased(state: StateDirectory, withdrawal: WithdrawalRecord) -> str:
    """In which way contributions were erased, and how far that got."""
    rows = "rows overwritten (SQLite secure_delete)" if _overwrites(state) else "rows deleted"
    words = f"files unlinked, {rows}, sealing keys of the site destroyed where contributions were encrypted"
    keys = keys_destroyed(state, withdrawal.id)
    if keys is not None and keys.unreached:
        words += f", but {keys.unreached} of {keys.copies} copies of the keys not reached"
    elif keys is not None and keys.made_good:
        words += ", copies of the keys and the database's log at a later attempt"
    purge = purge_after(state, withdrawal)
    if purge is not None:
        words += f"; the SuperLink's database emptied of messages on {purge.at:%Y-%m-%d}"
    return words


def exceptions_of(
    state: StateDirectory,
    withdrawal: WithdrawalRecord,
    revoked: Sequence[str],
    recipients: Sequence[Mapping[str, Any]],
) -> tuple[str, ...]:
    """What is left of the site, and where, in words."""
    if withdrawal.state is not WithdrawalState.COMPLETED:
        return ()
    registry = ModelRegistry(state)
    kept = sum(not registry.get(version).pruned for version in revoked)
    waiting = sum(entry["notified_at"] is None for entry in recipients)
    found = []
    if withdrawal.in_part:
        found.append("Models that the site shaped are kept and used, for the reason given with the decision.")
    if kept:
        found.append(f"The files of {kept} revoked model versions are still on the server, refused for use.")
    if recipients:
        found.append(
            f"{len(recipients)} recipients had received revoked models; {waiting} have not been told yet. "
            "Copies they keep are out of the operator's reach."
        )
    found.append(
        "Backups, swap space and copies that were made outside of this software are not covered: the "
        "operator answers for them."
    )
    if not _overwrites(state):
        found.append(
            f"The database ({state.engine.url.get_backend_name()}) keeps deleted rows, such as the site's "
            "shares and norms, until its VACUUM, and in its archives; no update is among them."
        )
    if unknown := backups_before(state, withdrawal).unknown:
        found.append(
            f"Of {unknown} backups that an earlier release made it is not on record whether contributions in "
            "them were encrypted."
        )
    found += unfinished(state, withdrawal)
    if withdrawal.late:
        found.append("The request was closed after its deadline.")
    return tuple(found)


def not_shown(level: ClaimLevel, evidence: Sequence[Evidence], *, simulated: bool) -> tuple[str, ...]:
    """What nobody may conclude from the certificate."""
    found = []
    if simulated:
        found.append("Nobody withdrew: this was exercised in a simulation, and is evidence of nothing.")
    found.append(
        "A model's parameters prove nothing by themselves: the same ones can be reached with and without a "
        "site. What is signed is the procedure on record, as the operator's server recorded it."
    )
    if level is ClaimLevel.EXACT_RETRAIN:
        found.append("That the choice of architecture and hyper-parameters owed nothing to the site.")
    else:
        found.append("That no trace of the site is left in the model: it was changed, not made anew.")
    if not any(item.about is About.FORGETTING for item in evidence):
        found.append(
            "How much the model has forgotten: nothing was measured on the site's data or against a model "
            "retrained without it."
        )
    found.append("Anything about models that were given out before the withdrawal, or made from them.")
    found.append(
        "That earlier processing was unlawful: a withdrawal does not affect what was done before it "
        "(GDPR Art. 7(3))."
    )
    return tuple(found)
