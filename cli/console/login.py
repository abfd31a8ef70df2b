"""Logging in and out."""

from __future__ import annotations

import hmac
import math
import re
import secrets

from starlette.responses import Response

from cli.console.limits import PER_ACCOUNT
from cli.console.passwords import hash_password, is_outdated, is_password
from cli.console.sessions import LONGEST_SECONDS
from cli.console.visits import Visit, see_other
from server.persistence import ConsoleUser, ConsoleUsers, Ledger
from server.persistence.ledger_entries import CONSOLE_LOGIN

_NONCE = re.compile(r"[A-Za-z0-9_-]{22,64}")
_WRONG = "Name or password is wrong."


def form(visit: Visit) -> Response:
    """The log-in form."""
    if visit.user is not None:
        return see_other("/")
    return _form(visit)


def log_in(visit: Visit) -> Response:
    """Let somebody in, or not; each attempt that is heard is in the ledger."""
    nonce = visit.request.cookies.get(_nonce_cookie(visit), "")
    expected = visit.console.sessions.form_token(nonce)
    if not _NONCE.fullmatch(nonce) or not hmac.compare_digest(
        visit.text("token").encode(), expected.encode()
    ):
        return _form(visit, 403, "The form is too old. Please log in again.")
    name = visit.text("name").lower()[:64]
    address = visit.request.client.host if visit.request.client else ""
    limit = visit.console.limit
    wait = limit.begin(name, address)
    if wait:
        minutes = math.ceil(wait / 60)
        answer = _form(visit, 429, f"Too many attempts. Try again in {minutes} minutes.")
        answer.headers["Retry-After"] = str(math.ceil(wait))
        return answer
    users = ConsoleUsers(visit.state)
    user = users.get(name)
    # The password as typed: blanks around it belong to it.
    password = next(iter(visit.fields.get("password", ())), "")
    if not is_password(user.password if user else None, password) or user is None:
        _record(visit, user, "failed", limit.failures(name))
        left = PER_ACCOUNT - limit.failures(name)
        warning = f" {left} more attempts are heard for now." if left <= 2 else ""
        return _form(visit, 401, _WRONG + warning)
    failed = limit.succeeded(name, address)
    if is_outdated(user.password):
        users.set_password(name, hash_password(password), quietly=True)
    _record(visit, user, "ok", failed)
    visit.console.sessions.end(visit.request.cookies.get(visit.console.cookie))
    token = visit.console.sessions.begin(user)
    answer = see_other("/")
    _set_cookie(visit, answer, visit.console.cookie, token, int(LONGEST_SECONDS))
    answer.delete_cookie(_nonce_cookie(visit), path="/", secure=visit.console.secure, httponly=True)
    return answer


def log_out(visit: Visit) -> Response:
    """End the session."""
    _record(visit, visit.who, "ended", 0)
    visit.console.sessions.end(visit.request.cookies.get(visit.console.cookie))
    answer = see_other("/login")
    answer.delete_cookie(visit.console.cookie, path="/", secure=visit.console.secure, httponly=True)
    answer.headers["Clear-Site-Data"] = '"cache", "cookies", "storage"'
    return answer


def _form(visit: Visit, status: int = 200, problem: str = "") -> Response:
    nonce = visit.request.cookies.get(_nonce_cookie(visit), "")
    if not _NONCE.fullmatch(nonce):
        nonce = secrets.token_urlsafe(24)
    token = visit.console.sessions.form_token(nonce)
    consortium = visit.console.opened.consortium().name
    answer = visit.page("login.html.j2", status, token=token, problem=problem, consortium=consortium)
    _set_cookie(visit, answer, _nonce_cookie(visit), nonce, 3600)
    return answer


def _record(visit: Visit, user: ConsoleUser | None, outcome: str, failed: int) -> None:
    """``failed``: attempts at the account that failed lately; ``unheard``: attempts turned away since."""
    body = {
        "user": None if user is None else user.id,
        "role": None if user is None else user.role.value,
        "outcome": outcome,
        "failed": failed,
        "unheard": visit.console.limit.take_unheard(),
        "request": visit.number,
    }
    Ledger(visit.state).append(CONSOLE_LOGIN, body)


def _nonce_cookie(visit: Visit) -> str:
    return f"{visit.console.cookie}-form"


def _set_cookie(visit: Visit, answer: Response, name: str, value: str, seconds: int) -> None:
    answer.set_cookie(
        name, value, max_age=seconds, path="/", secure=visit.console.secure, httponly=True, samesite="strict"
    )
