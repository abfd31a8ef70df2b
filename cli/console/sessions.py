"""Who is logged in. Sessions are kept in memory: a restart of the console logs everybody out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from cli.filing import WithdrawalRequest
from server.persistence import ConsoleUser

IDLE_SECONDS = 30 * 60.0
LONGEST_SECONDS = 8 * 3600.0
MOST_DRAFTS = 20


@dataclass(slots=True)
class Session:
    """Somebody who is logged in.

    Attributes
    ----------
    user
        Who, by number.
    valid
        The user's ``changed_at`` at log-in: a new password or role ends the session.
    csrf
        What every form must bring back.
    notices
        What the next page is to say: ``(kind, text)``.
    drafts
        Requests that wait for their confirmation, by their token.
    """

    user: str
    valid: object
    began: float
    seen: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    notices: list[tuple[str, str]] = field(default_factory=list)
    drafts: OrderedDict[str, WithdrawalRequest] = field(default_factory=OrderedDict)

    def keep_draft(self, request: WithdrawalRequest) -> str:
        """Keep a request until it is confirmed; returns its token."""
        token = secrets.token_urlsafe(16)
        self.drafts[token] = request
        while len(self.drafts) > MOST_DRAFTS:
            self.drafts.popitem(last=False)
        return token


class Sessions:
    """The sessions, by the hash of the token in the browser's cookie.

    Parameters
    ----------
    idle_seconds, longest_seconds
        A session ends so long after its last page, and so long after its log-in.
    clock
        Of the process.
    """

    def __init__(
        self,
        idle_seconds: float = IDLE_SECONDS,
        longest_seconds: float = LONGEST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._idle, self._longest, self._clock = idle_seconds, longest_seconds, clock
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._secret = secrets.token_bytes(32)

    def begin(self, user: ConsoleUser) -> str:
        """Log a user in; returns the token for the cookie."""
        token, now = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            self._sessions = {k: s for k, s in self._sessions.items() if self._alive(s, now)}
            self._sessions[_name(token)] = Session(user.id, user.changed_at, now, now)
        return token

    def find(self, token: str | None, *, touch: bool = True) -> Session | None:
        """The session of a token, if it has not ended; ``touch`` says that somebody is there."""
        now = self._clock()
        with self._lock:
            session = self._sessions.get(_name(token or ""))
            if session is None or not self._alive(session, now):
                self._sessions.pop(_name(token or ""), None)
                return None
            if touch:
                session.seen = now
            return session

    def end(self, token: str | None) -> None:
        """Log out."""
        with self._lock:
            self._sessions.pop(_name(token or ""), None)

    def form_token(self, nonce: str) -> str:
        """What the log-in form must bring back beside the cookie ``nonce``: nobody is logged in there yet."""
        return hmac.new(self._secret, nonce.encode(), hashlib.sha256).hexdigest()

    def _alive(self, session: Session, now: float) -> bool:
        return now - session.seen < self._idle and now - session.began < self._longest


def _name(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
