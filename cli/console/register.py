"""The register of withdrawals: the list, one of them with its progress, and what is decided about it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from cli.console.intake import intake_choices, intake_of
from cli.console.visits import Visit, see_other
from reconsent.errors import WithdrawalError
from server.persistence import (
    Certificates,
    PrivacyDesk,
    RunEvents,
    StateDirectory,
    WithdrawalRecord,
    Withdrawals,
)
from server.recipients import recipients_of
from server.status import run_of
from server.withdrawal_view import details_of, summary_of
from unlearning.certificate.signed import read_unverified
from unlearning.request import Ground
from unlearning.withdrawal import WithdrawalState, allowed_from

STEPS = ("received", "restricted", "unlearning", "verifying", "propagating", "completed")
_BULKY = {"at", "actor", "kind", "files", "revoked", "code", "settings", "figures", "packages"}
_S = WithdrawalState


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that can be decided about a withdrawal.

    Attributes
    ----------
    label, about
        For the button, and what it does, in words.
    possible
        Whether it can be decided now.
    done
        What is said afterwards.
    grave
        Whether it must be confirmed with a tick.
    """

    label: str
    about: str
    possible: Callable[[WithdrawalRecord], bool]
    done: str
    grave: bool = False


def _leads_to(state: WithdrawalState) -> Callable[[WithdrawalRecord], bool]:
    return lambda record: state in allowed_from(record.state, failed_in=record.failed_in)


DECISIONS: Mapping[str, Decision] = {
    "extend": Decision(
        "Extend the period",
        "Two months more, counted from receipt; once, and only within the first month. The requester must be "
        "told of it and why within that month (GDPR Art. 12(3)).",
        lambda record: not record.state.closed and record.extended_at is None,
        "Extended. Tell the requester, with the reason, before the first month is over.",
    ),
    "hold": Decision(
        "Put on legal hold",
        "Who leaves stays out, nothing is unlearned or erased until it is released.",
        _leads_to(_S.LEGAL_HOLD),
        "On legal hold. Tell the requester why.",
    ),
    "release": Decision(
        "Release from legal hold",
        "The withdrawal goes on; its period is where it was.",
        lambda record: record.state is _S.LEGAL_HOLD,
        "Released.",
    ),
    "grant-in-part": Decision(
        "Grant in part",
        "Who leaves stays out and the site's contributions are erased; the models are kept. The reason names "
        "the legal basis on which they are kept.",
        lambda record: (
            (record.failed_in or record.state) in (_S.RECEIVED, _S.RESTRICTED, _S.LEGAL_HOLD)
            and not record.in_part
        ),
        "Granted in part.",
        grave=True,
    ),
    "refuse": Decision(
        "Refuse",
        "A site that was barred may take part again, with a new key; one that stayed still leaves its "
        "patients out, by its own policy. The requester must be told why, and where to complain (GDPR Art. "
        "12(4)).",
        _leads_to(_S.REFUSED),
        "Refused. Tell the requester why, and where to complain.",
        grave=True,
    ),
    "cancel": Decision(
        "Cancel",
        "Because who asked wants it no more. A site that was barred may take part again, with a new key; one "
        "that stayed still leaves its patients out, by its own policy.",
        _leads_to(_S.CANCELLED),
        "Cancelled.",
        grave=True,
    ),
}


def register(visit: Visit) -> Response:
    """Every withdrawal, the open ones first."""
    now = dt.datetime.now(dt.UTC)
    state = visit.state
    records = [summary_of(state, record, now) for record in Withdrawals(state).all()]
    # Open before closed, by their deadline; closed the newest first.
    open_ = sorted((r for r in records if r["days_left"] is not None), key=lambda r: str(r["due_at"]))
    closed = [r for r in reversed(records) if r["days_left"] is None]
    return visit.page("withdrawals.html.j2", records=[*open_, *closed], words=_ground_words())


def withdrawal(visit: Visit) -> Response:
    """One withdrawal: request, deadline, progress, decisions, recipients, certificates."""
    state = visit.state
    record = Withdrawals(state).get(visit.request.path_params["id"])
    found = details_of(state, record, dt.datetime.now(dt.UTC))
    return visit.page(
        "withdrawal.html.j2",
        w=found,
        ground=record.ground.words,
        intake=record.intake,
        choices=intake_choices(),
        decisions={name: d for name, d in DECISIONS.items() if d.possible(record)},
        waiting=[entry for entry in found["recipients"] if entry["notified_at"] is None],
        history=_history(found),
        certificates=[
            (kept, read_unverified(kept.content).certificate) for kept in Certificates(state).all(record.id)
        ],
        **_progress(state, found),
    )


def progress(visit: Visit) -> Response:
    """The part of the page that changes by itself."""
    state = visit.state
    record = Withdrawals(state).get(visit.request.path_params["id"])
    found = summary_of(state, record, dt.datetime.now(dt.UTC))
    return visit.page("progress.html.j2", w=found, **_progress(state, found))


def decide(visit: Visit) -> Response:
    """Extend, hold, release, refuse, cancel, or grant in part."""
    id_, name = visit.request.path_params["id"], visit.request.path_params["decision"]
    decision = DECISIONS.get(name)
    if decision is None:
        return visit.error(404, "There is nothing here", f"There is no decision '{name[:40]}'.")
    if decision.grave and visit.text("sure") != "yes":
        raise WithdrawalError("The tick is missing that confirms it.", "Tick it, if you mean it.")
    state, reason = visit.state, visit.text("reason")
    desk = PrivacyDesk(state, visit.who.name)
    with state.session() as session:
        if name == "hold":
            desk.hold(id_, reason, _day(visit.text("until")))
        else:
            getattr(desk, name.replace("-", "_"))(id_, reason)
        visit.record(name, id_, state=state, session=session)
    visit.say(decision.done)
    return see_other(f"/withdrawals/{id_}")


def note(visit: Visit) -> Response:
    """Add a note, documents by their hash, a new owner, or how the request came in."""
    from cli.console.filing import documents_of

    id_, text, owner = visit.request.path_params["id"], visit.text("text"), visit.text("owner")
    documents, intake = documents_of(visit), intake_of(visit)
    if not text and not owner and not documents and not intake.stated:
        raise WithdrawalError("There is nothing to note.", "Write a note, or fill in another field.")
    state = visit.state
    desk = PrivacyDesk(state, visit.who.name)
    with state.session() as session:
        if text:
            desk.note(id_, text)
        for document in documents:
            desk.attach(id_, document)
        if owner:
            desk.assign(id_, owner)
        desk.correct(id_, intake)
        visit.record("note", id_, state=state, session=session)
    visit.say("Noted.")
    return see_other(f"/withdrawals/{id_}")


def notify(visit: Visit) -> Response:
    """Put on record that recipients were told (GDPR Art. 19)."""
    id_, named = visit.request.path_params["id"], visit.fields.get("recipient", [])
    state = visit.state
    known = {recipient.name for recipient in recipients_of(state, Withdrawals(state).get(id_))}
    if not named or not set(named) <= known:
        raise WithdrawalError("It is not said who was told.", "Tick recipients of the list.")
    how = visit.line("how", "How the recipients were told")
    desk = PrivacyDesk(state, visit.who.name)
    with state.session() as session:
        for name in named:
            desk.notified(id_, name, how)
        visit.record("notify", id_, state=state, session=session)
    visit.say(f"On record: {len(named)} told.")
    return see_other(f"/withdrawals/{id_}")


def _progress(state: StateDirectory, found: Mapping[str, Any]) -> dict[str, Any]:
    """Steps done, the one under way, and what the run says of it."""
    present = found["failed_in"] if found["state"] == "failed" else found["state"]
    at = STEPS.index(present) if present in STEPS else None
    run = run_of(state)
    running = run is not None and run["status"] == "running"
    events = RunEvents(state).after(max(0, RunEvents(state).last_number() - 200))
    own = [event for event in events if run is not None and event.run == run["id"]]
    counted = next((event for event in reversed(own) if event.total), None)
    return {
        "steps": STEPS,
        "at": at,
        "running": running,
        "interrupted": run is not None and run["status"] == "interrupted",
        "event": own[-1].text if own and running else "",
        "counted": counted if running and present in ("unlearning", "verifying") else None,
        "over": found["days_left"] is None,
    }


def _history(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Steps and acts in the order of time."""
    steps = [{**step, "what": step["to"], "words": step["note"], "step": True} for step in found["events"]]
    acts = [{**act, "what": act["kind"], "words": _words(act), "step": False} for act in found["acts"]]
    return sorted([*steps, *acts], key=lambda entry: str(entry["at"]))


def _words(act: Mapping[str, Any]) -> str:
    kept = {k: v for k, v in act.items() if k not in _BULKY and not isinstance(v, dict | list)}
    return "; ".join(f"{key}: {value}" for key, value in kept.items() if value is not None)


def _ground_words() -> dict[str, str]:
    return {ground.value: ground.words for ground in Ground}


def _day(text: str) -> dt.date | None:
    if not text:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise WithdrawalError(f"'{text[:40]}' is no day.", "Write it as 2027-01-31.") from None
