"""What stands before every page: names it answers to, a limit of size, headers, a number for each request."""

from __future__ import annotations

import secrets
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 10 * 2**20
"""Bytes of a form with its files."""
LARGEST_LOGIN = 8 * 2**10
"""Bytes of the log-in form, which is read from anybody."""

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
_YEAR = 365 * 24 * 3600


class TooLargeError(Exception):
    """A request is larger than :data:`LARGEST_BODY`, or than :data:`LARGEST_LOGIN` at the log-in."""


class Guard:
    """ASGI middleware; what it adds, every answer has, errors included.

    Parameters
    ----------
    app
        What it stands before.
    names
        Host names it answers to; another name would be a page elsewhere that resolves to this address.
    secure
        Whether it is reached by TLS: browsers are then told to use nothing else.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str], secure: bool) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)
        self._headers = dict(_HEADERS)
        if secure:
            self._headers["Strict-Transport-Security"] = f"max-age={_YEAR}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number = secrets.token_hex(8)
        scope.setdefault("state", {})["number"] = number

        async def adorned(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers["X-Request-ID"] = number
            await send(message)

        headers = Headers(scope=scope)
        name = _without_port(headers.get("host", ""))
        length = headers.get("content-length", "0")
        largest = LARGEST_LOGIN if scope["path"] == "/login" else LARGEST_BODY
        if name.lower() not in self._names:
            refusal = PlainTextResponse("This console does not go by that name.\n", 421)
            await refusal(scope, receive, adorned)
        elif not length.isdecimal() or int(length) > largest:
            await PlainTextResponse("That is too large.\n", 413)(scope, receive, adorned)
        else:
            await self._app(scope, _limited(receive, largest), adorned)


def _limited(receive: Receive, largest: int) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > largest:
            raise TooLargeError
        return message

    return counted


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[")
    return host.partition(":")[0]
