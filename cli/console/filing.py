"""Filing a withdrawal: the form, its confirmation, and the filing, as ``reconsent withdraw`` does it."""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from pathlib import PurePosixPath, PureWindowsPath

from sqlalchemy.orm import Session as Transaction
from starlette.responses import Response

from cli.console.intake import intake_choices, intake_of
from cli.console.visits import Visit, see_other
from cli.deployment import Deployment
from cli.filing import WithdrawalRequest, file_withdrawal, moment_of
from reconsent.config import ConsortiumConfig
from reconsent.errors import WithdrawalError
from server.persistence import PrivacyDesk, Roster, SiteStatus, StateDirectory, WithdrawalRecord
from unlearning.request import (
    LONGEST_NAME,
    PATIENTS_ONLY,
    Attachment,
    Ground,
    RequestDetails,
    checked_text,
    time_zone,
)
from unlearning.withdrawal import deadline


def form(visit: Visit) -> Response:
    """The empty form."""
    return _form(visit)


def check(visit: Visit) -> Response:
    """Read the form; show what would be filed, or what is wrong, with everything that was typed."""
    config = visit.console.opened.consortium()
    try:
        request = _request(visit, config)
    except WithdrawalError as error:
        return _form(visit, 400, f"{error.problem} {error.remedy}")
    return _confirmation(visit, config, request)


def file(visit: Visit) -> Response:
    """File what was confirmed: once, if it is sent twice; not at all, if it was closed meanwhile."""
    assert visit.session is not None  # noqa: S101 - only users come here
    request = visit.session.drafts.get(visit.text("draft"))
    if request is None:
        return visit.error(
            409, "Nothing to confirm", "This request is not known any more; nothing was filed by this.",
            "Look in the list whether it was filed before; if not, fill in the form again.",
        )  # fmt: skip
    by = f"{visit.who.name} ({visit.who.id})"

    def also(state: StateDirectory, session: Transaction, record: WithdrawalRecord, repeated: bool) -> None:
        if not repeated:
            text = f"Filed in the console by {by}, in request {visit.number}."
            PrivacyDesk(state, visit.who.name).note(record.id, text)
        outcome = "repeated" if repeated else "done"
        visit.record("withdraw", record.id, outcome=outcome, state=state, session=session)

    filed = file_withdrawal(Deployment.find(visit.console.opened.path), request, also)
    record = filed.record
    if filed.repeated:
        visit.say(f"This request was filed before: here it is, {record.id}. Nothing was filed twice.", "note")
        for line in filed.differing:
            visit.say(line, "bad")
    else:
        now = "is to leave them out" if record.site_stays else "is barred"
        visit.say(f"Filed as {record.id}. {', '.join(record.sites)} {now} from now on. {filed.keys}")
        then = (
            "The run under way carries it out after its present round."
            if filed.running is not None
            else "No run is under way: `reconsent unlearn` carries it out, or the next run does."
        )
        visit.say(then, "note")
    if filed.lacking:
        visit.say(f"It cannot be carried out as things are: {filed.lacking}", "bad")
    return see_other(f"/withdrawals/{record.id}")


def documents_of(visit: Visit) -> list[Attachment]:
    """The files that were sent, by name and hash; their contents are not kept.

    Raises
    ------
    WithdrawalError
        If a name could deceive whoever reads it.
    """
    found = []
    for upload in visit.uploads.get("documents", []):
        # Some browsers send a path, and somebody who is no browser may send anything.
        name = PurePosixPath(PureWindowsPath(upload.name).name).name
        name = checked_text(name, "The name of an attached file", longest=LONGEST_NAME, lines=False)
        digest = hashlib.sha256(upload.content).hexdigest()
        found.append(Attachment(name, digest, len(upload.content)))
    return found


def _request(visit: Visit, config: ConsortiumConfig) -> WithdrawalRequest:
    """What the form asks for.

    Raises
    ------
    WithdrawalError
        If a part of it cannot be right.
    """
    sites = tuple(sorted(set(visit.fields.get("site", ()))))
    known = _statuses(visit, config)
    if not sites:
        raise WithdrawalError("No site is chosen.", "Say who leaves.")
    if visit.text("scope") == PATIENTS_ONLY and len(sites) > 1:
        raise WithdrawalError(
            f"Patients of {', '.join(sites)} cannot leave by one request.", "File one for each site."
        )
    for site in sites:
        if site not in known:
            raise WithdrawalError(f"There is no site {site[:80]!r}.", "Choose from the list.")
        if known[site] == SiteStatus.WITHDRAWN:
            raise WithdrawalError(f"Site '{site}' has withdrawn already.", "There is nothing left to do.")
    try:
        ground = Ground(visit.text("ground") or Ground.UNSTATED)
        scope = visit.text("scope") or "site"
        if scope not in ("site", "patients", PATIENTS_ONLY):
            raise ValueError(scope)
        patients = None if scope == "site" else int(visit.text("patients"))
    except ValueError:
        raise WithdrawalError(
            "Ground, how much is withdrawn, or the number of patients cannot be read.", "Correct it."
        ) from None
    zone = config.compliance.time_zone
    now = dt.datetime.now(dt.UTC)
    details = RequestDetails(
        ground=ground,
        scope=scope,
        patients=patients,
        received_at=moment_of(visit.text("received") or None, zone) or now,
        zone=zone,
        owner=visit.text("owner") or None,
        # A number in any case: a form that is sent twice, or again later, is known by it.
        request_id=visit.text("request_id") or f"console-{secrets.token_hex(8)}",
        intake=intake_of(visit),
    ).checked(now)
    notes = [checked_text(visit.text("note"), "The note")] if visit.text("note") else []
    return WithdrawalRequest(
        sites=sites,
        reason=checked_text(visit.text("reason"), "The reason"),
        requested_by=visit.line("requested_by", "Who asks"),
        filed_by=visit.who.name,
        details=details,
        cooperating=visit.text("cooperating") == "yes" or details.scope == PATIENTS_ONLY,
        documents=tuple(documents_of(visit)),
        notes=tuple(notes),
    )


def _confirmation(visit: Visit, config: ConsortiumConfig, request: WithdrawalRequest) -> Response:
    assert visit.session is not None  # noqa: S101 - only users come here
    details = request.details
    assert details.received_at is not None  # noqa: S101 - set by _request
    zone = time_zone(details.zone)
    due = deadline(details.received_at, zone=zone).astimezone(zone)
    return visit.page(
        "confirm.html.j2",
        request=request,
        ground=details.ground.words,
        received=details.received_at.astimezone(zone),
        due=due,
        late=due < dt.datetime.now(dt.UTC),
        method=config.unlearning.method,
        stays=details.scope == PATIENTS_ONLY,
        draft=visit.session.keep_draft(request),
    )


def _form(visit: Visit, status: int = 200, problem: str = "") -> Response:
    config = visit.console.opened.consortium()
    statuses = _statuses(visit, config)
    kept = {name: values[0] for name, values in visit.fields.items() if values and name != "csrf"}
    return visit.page(
        "file.html.j2",
        status,
        problem=problem,
        kept=kept,
        chosen=visit.fields.get("site", []),
        sites=statuses,
        grounds=[(ground.value, ground.words) for ground in Ground],
        choices=intake_choices(),
        zone=config.compliance.time_zone,
        method=config.unlearning.method,
    )


def _statuses(visit: Visit, config: ConsortiumConfig) -> dict[str, str]:
    found = {site.name: SiteStatus.ACTIVE.value for site in config.sites}
    found |= {entry.site: entry.status.value for entry in Roster(visit.state).all()}
    return dict(sorted(found.items()))
