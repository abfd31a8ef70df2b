"""A visit to a page: who comes, what they may do, what they brought, and what the ledger says of it."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from logging import INFO
from typing import Any
from urllib.parse import urlsplit

from python_multipart.exceptions import FormParserError
from sqlalchemy.orm import Session as Transaction
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from cli.console.guard import TooLargeError
from cli.console.limits import LoginLimit
from cli.console.opened import OpenState
from cli.console.refusals import (
    KNOWN_DECISIONS,
    ROLE,
    TOO_LARGE,
    UNFORESEEN,
    UNREADABLE,
    reason_of,
    reason_of_status,
    subject_of,
)
from cli.console.rendering import render
from cli.console.sessions import Session, Sessions
from reconsent.errors import ReconsentError, SignatureError, StateError, WithdrawalError
from reconsent.log_lines import tell
from server.persistence import ConsoleUser, ConsoleUsers, Ledger, Role, StateDirectory
from server.persistence.ledger_entries import CONSOLE_ACTION
from unlearning.request import LONGEST_NAME, checked_text


class Right(StrEnum):
    """What a page or a form asks of its visitor."""

    ANYBODY = "anybody"
    READ = "read"
    DECIDE = "decide"
    COUNTERSIGN = "countersign"
    OPERATE = "operate"


RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.VIEWER: frozenset({Right.READ}),
    Role.OFFICER: frozenset({Right.READ, Right.DECIDE, Right.COUNTERSIGN}),
    Role.OPERATOR: frozenset({Right.READ, Right.DECIDE, Right.OPERATE}),
}
"""Nobody has all of them: a certificate needs two people."""


@dataclass(frozen=True, slots=True)
class Console:
    """What all pages share.

    Attributes
    ----------
    opened
        The consortium.
    sessions, limit
        Who is logged in, and how often that failed.
    secure
        Whether the console is reached by TLS.
    """

    opened: OpenState
    sessions: Sessions = field(default_factory=Sessions)
    limit: LoginLimit = field(default_factory=LoginLimit)
    secure: bool = False

    @property
    def cookie(self) -> str:
        """Name of the session's cookie; with TLS one that no other host can set."""
        return "__Host-reconsent" if self.secure else "reconsent"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was sent: its name as the browser gave it, and its content."""

    name: str
    content: bytes


@dataclass(slots=True)
class Visit:
    """One request.

    Attributes
    ----------
    console
        What all pages share.
    request
        As Starlette has it.
    number
        Names it in the ledger and in the header ``X-Request-ID``.
    user, session
        Who comes; ``None`` if not logged in.
    fields, uploads
        What the form brought.
    recorded
        Whether the ledger has what became of it.
    """

    console: Console
    request: Request
    number: str
    user: ConsoleUser | None = None
    session: Session | None = None
    fields: dict[str, list[str]] = field(default_factory=dict)
    uploads: dict[str, list[Upload]] = field(default_factory=dict)
    recorded: bool = False

    @property
    def state(self) -> StateDirectory:
        """The consortium's state."""
        return self.console.opened.state()

    @property
    def who(self) -> ConsoleUser:
        """The user, on a page that only users see."""
        assert self.user is not None  # noqa: S101 - pages for anybody do not ask
        return self.user

    def may(self, right: Right) -> bool:
        """Whether the visitor has a right."""
        return self.user is not None and right in RIGHTS[self.user.role]

    def text(self, name: str) -> str:
        """A field of the form, without blanks around it; empty if it is missing."""
        return next(iter(self.fields.get(name, ())), "").replace("\r\n", "\n").strip()

    def line(self, name: str, what: str) -> str:
        """A field that must be one line that can be shown as it is.

        Raises
        ------
        WithdrawalError
            If it is empty, too long, or cannot be shown.
        """
        return checked_text(self.text(name), what, longest=LONGEST_NAME, lines=False)

    def say(self, text: str, kind: str = "good") -> None:
        """Have the next page say something."""
        if self.session is not None:
            self.session.notices.append((kind, text))

    def record(
        self, action: str, subject: str | None = None, *, outcome: str = "done",
        reason: str | None = None, state: StateDirectory | None = None,
        session: Transaction | None = None,
    ) -> None:  # fmt: skip
        """Put on record in the ledger what the user does, in the transaction of what is done.

        ``reason``, for what was refused, is a word of :mod:`cli.console.refusals`.
        The console's log says it too once it is done, with the correlation of the work that follows.
        """
        body = {
            "user": self.who.id,
            "role": self.who.role.value,
            "action": action,
            "subject": subject,
            "outcome": outcome,
            "request": self.number,
        }
        if reason is not None:
            body["reason"] = reason
        Ledger(state or self.state).append(CONSOLE_ACTION, body, session=session)
        if session is None:
            self._tell(action, subject, outcome)
        else:
            StateDirectory.after_commit(session, lambda: self._tell(action, subject, outcome))

    def refused(self, action: str, reason: str) -> None:
        """Put on record that it was not done, unless something is on record already.

        If that cannot be done either, as on a full disk, the user is told why all the same.
        """
        if self.user is not None and not self.recorded:
            with suppress(ReconsentError):
                subject = subject_of(self.request.path_params.get("id"))
                self.record(action, subject, outcome="refused", reason=reason)

    def _tell(self, action: str, subject: str | None, outcome: str) -> None:
        self.recorded = True
        withdrawal = subject if subject is not None and subject.startswith("W-") else None
        named = {"correlation": withdrawal or self.number, "withdrawal": withdrawal}
        tell(INFO, "console", action, **named, outcome=outcome, user=self.who.id, request=self.number)

    def page(self, template: str, code: int = 200, **values: Any) -> Response:
        """A page of the console."""
        shared = {
            "user": self.user,
            "csrf": self.session.csrf if self.session else "",
            "rights": RIGHTS[self.user.role] if self.user else frozenset(),
            "path": self.request.url.path,
            "number": self.number,
            "notices": self._notices,
        }
        return Response(render(template, {**shared, **values}), code, media_type="text/html; charset=utf-8")

    def _notices(self) -> list[tuple[str, str]]:
        """What is to be said, once: a part of a page that has no place for it does not ask."""
        if self.session is None:
            return []
        notices, self.session.notices = self.session.notices, []
        return notices

    def error(self, status: int, title: str, problem: str, remedy: str = "") -> Response:
        """A page that says what went wrong, and what to do."""
        return self.page("error.html.j2", status, title=title, problem=problem, remedy=remedy)


View = Callable[[Visit], Response]


def see_other(path: str) -> Response:
    """Have the browser get another page; what was sent is not sent again when it is loaded anew."""
    return RedirectResponse(path, 303)


def route(
    console: Console, path: str, view: View, *, right: Right, action: str | None = None, touch: bool = True
) -> Route:
    """A page of the console for those who have a right; or a form, which does the ``action``."""
    post = action is not None

    async def endpoint(request: Request) -> Response:
        visit = Visit(console, request, str(request.state.number))
        tried = _tried(visit, action)
        if post:
            refusal = await run_in_threadpool(_unread_refusal, visit, right, touch=touch)
            if refusal is not None:
                return refusal
            try:
                await _read_form(visit)
            except TooLargeError:
                await run_in_threadpool(visit.refused, tried, TOO_LARGE)
                return Response("That is too large.\n", 413, media_type="text/plain")
            except HTTPException:
                await run_in_threadpool(visit.refused, tried, UNREADABLE)
                raise
        return await run_in_threadpool(_answer, visit, view, right, tried if post else None, touch=touch)

    return Route(path, endpoint, methods=["POST" if post else "GET"])


def _tried(visit: Visit, action: str | None) -> str:
    """What a form does; of decisions, which are many in one, the one that the path names."""
    decision = str(visit.request.path_params.get("decision", ""))
    return decision if decision in KNOWN_DECISIONS else action or ""


async def _read_form(visit: Visit) -> None:
    try:
        async with visit.request.form(max_files=20, max_fields=200, max_part_size=64 * 1024) as form:
            for name, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    visit.fields.setdefault(name, []).append(value)
                elif value.filename:
                    upload = Upload(value.filename, await value.read())
                    visit.uploads.setdefault(name, []).append(upload)
    except FormParserError as error:
        raise HTTPException(400, "The form cannot be read.") from error


def _unread_refusal(visit: Visit, right: Right, *, touch: bool) -> Response | None:
    """Why a form is not even read, by its headers alone: a stranger must not fill memory and disk."""
    try:
        _recognise(visit, touch=touch)
        return _refusal_of_stranger(visit, right, post=True)
    except StateError as error:
        return visit.error(503, "The state cannot be used", error.problem, error.remedy)


def _answer(visit: Visit, view: View, right: Right, action: str | None, *, touch: bool) -> Response:
    """``action``: what the form does; ``None`` for a page."""
    try:
        answer = _answered(visit, view, right, action, touch=touch)
    except Exception:
        if action is not None:
            visit.refused(action, UNFORESEEN)
        raise
    if action is not None and answer.status_code >= HTTPStatus.BAD_REQUEST and right is not Right.ANYBODY:
        visit.refused(action, reason_of_status(answer.status_code))
    return answer


def _answered(visit: Visit, view: View, right: Right, action: str | None, *, touch: bool) -> Response:
    post = action is not None
    try:
        # Of a form as well: while it was read, the session may have ended.
        _recognise(visit, touch=touch)
        refusal = _refusal_of_stranger(visit, right, post=post) or _refusal(visit, right, action)
        return refusal or view(visit)
    except ReconsentError as error:
        if action is not None:
            visit.refused(action, reason_of(error))
        return _error_page(visit, error, post=post)


def _error_page(visit: Visit, error: ReconsentError, *, post: bool) -> Response:
    if isinstance(error, StateError):
        return visit.error(503, "The state cannot be used", error.problem, error.remedy)
    if isinstance(error, WithdrawalError | SignatureError):
        if not post:
            return visit.error(404, "There is nothing here", error.problem, error.remedy)
        code = 409 if isinstance(error, WithdrawalError) else 400
        return visit.error(code, "That cannot be done", error.problem, error.remedy)
    return visit.error(400, "That cannot be done", error.problem, error.remedy)


def _recognise(visit: Visit, *, touch: bool) -> None:
    """Find out who comes: asked of the state anew each time, so that whoever was removed is out at once."""
    visit.user = visit.session = None
    token = visit.request.cookies.get(visit.console.cookie)
    session = visit.console.sessions.find(token, touch=touch)
    if session is None:
        return
    user = ConsoleUsers(visit.state).of_id(session.user)
    if user is None or user.changed_at != session.valid:
        visit.console.sessions.end(token)
        return
    visit.user, visit.session = user, session


def _refusal_of_stranger(visit: Visit, right: Right, *, post: bool) -> Response | None:
    if post and not _same_origin(visit.request):
        return visit.error(403, "Not from here", "The form was sent from another page than the console's.")
    if right is Right.ANYBODY:
        return None
    if visit.session is None:
        if post:
            problem = "You are not logged in any more; nothing was done."
            return visit.error(401, "Not logged in", problem, "Log in and do it again.")
        return see_other("/login")
    return None


def _refusal(visit: Visit, right: Right, action: str | None) -> Response | None:
    """Whether somebody who is logged in may not do it, or did not mean it."""
    if right is Right.ANYBODY or visit.session is None:
        return None
    token = visit.text("csrf").encode()
    if action is not None and not hmac.compare_digest(token, visit.session.csrf.encode()):
        visit.record("form", outcome="wrong-token")
        return visit.error(
            403, "Not from here", "The form did not come from a page of this log-in; nothing was done.",
            "Open the page again and repeat it.",
        )  # fmt: skip
    if not visit.may(right):
        if action is not None:
            visit.refused(action, ROLE)
        return visit.error(
            403, "Not yours to do", f"As {visit.who.role} you may not do this; nothing was done.",
            "Ask whoever runs this console, if you should.",
        )  # fmt: skip
    return None


def _same_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")
