"""The small HTTP server of an exporter: ``/metrics``, ``/healthz`` and ``/readyz``."""

from __future__ import annotations

import base64
import binascii
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from reconsent.errors import ConfigError, ReconsentError
from reconsent.exposition.web_config import WebConfigFile

PATIENCE_SECONDS = 10.0
"""Time for a client to say what it wants; a silent one must not hold a thread for ever."""

_PAGE = b"Reconsent metrics: /metrics, /healthz, /readyz\n"


class MetricsServer:
    """Serves a registry until it is closed.

    ``/healthz`` says that the process lives. ``/readyz`` says whether there is something to show, with the
    reason if not (status 503). Both need no password, as probes have none, and tell nothing else.

    Parameters
    ----------
    registry
        What ``/metrics`` shows.
    address
        Host and port, as ``127.0.0.1:9464`` or ``[::1]:9464``; port 0 takes a free one.
    unready
        Why there is nothing to show, in words; empty if there is.
    web
        TLS and passwords.

    Raises
    ------
    ConfigError
        If the address is none, or is taken.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        address: str,
        *,
        unready: Callable[[], str] = lambda: "",
        web: WebConfigFile | None = None,
    ) -> None:
        host, port = split_address(address)
        self._web = web or WebConfigFile(None)

        class Handler(_Handler):
            collected = registry
            not_ready = staticmethod(unready)
            access = self._web

        try:
            self._server = _server_of(host)((host, port), Handler)
        except OSError as error:
            raise ConfigError(
                f"Metrics cannot be served on {address}: {error.strerror}.", "Choose another address."
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> Self:
        """Serve from a thread of this process."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop serving."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.close()


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; an IPv6 host stands in brackets.

    Raises
    ------
    ConfigError
        If it is none.
    """
    host, _, port = address.rpartition(":")
    bare = host.strip("[]")
    if not bare or not port.isdecimal() or int(port) > 65535 or (":" in bare and not host.startswith("[")):
        raise ConfigError(f"'{address}' is no address to serve metrics on.", "Write it as 127.0.0.1:9464.")
    return bare, int(port)


class _Handler(BaseHTTPRequestHandler):
    server_version = "reconsent"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_SECONDS
    collected: CollectorRegistry
    not_ready: Callable[[], str]
    access: WebConfigFile

    def setup(self) -> None:
        """Shake hands here, in the connection's own thread."""
        if self.access.context is not None:
            self.request.settimeout(PATIENCE_SECONDS)
            with suppress(ConfigError):  # refused later, in words
                self.access.refresh_certificates()
            self.request = self.access.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        if isinstance(self.request, ssl.SSLSocket):
            self.request.close()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._answer(HTTPStatus.OK, b"ok\n")
        elif path == "/readyz":
            reason = self.not_ready()
            status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
            if reason and not self._known():
                # The words may name a database and its user.
                reason = "not ready; with a user and a password this page says why"
            self._answer(status, (reason or "ok").encode() + b"\n")
        elif self._admitted():
            if path == "/metrics":
                self._metrics()
            elif path == "/":
                self._answer(HTTPStatus.OK, _PAGE)
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"There is nothing here.\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _metrics(self) -> None:
        encode, kind = choose_encoder(self.headers.get("Accept", ""))
        try:
            content = encode(self.collected)
        except ReconsentError as error:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"{error}\n".encode())
            return
        self._answer(HTTPStatus.OK, content, kind)

    def _admitted(self) -> bool:
        try:
            if self._allowed():
                return True
        except ConfigError:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"The web configuration cannot be read.\n")
            return False
        self._answer(HTTPStatus.UNAUTHORIZED, b"A user and a password are needed.\n")
        return False

    def _allowed(self) -> bool:
        users = self.access.current().basic_auth_users
        return not users or self.access.admits(*_credentials(self.headers.get("Authorization", "")))

    def _known(self) -> bool:
        try:
            return self._allowed()
        except ConfigError:
            return False

    def _answer(self, status: HTTPStatus, content: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="reconsent"')
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line a scrape would be all there is in the log."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off, or speaks no TLS, is no error of ours."""


class _ServerV6(_Server):
    address_family = socket.AF_INET6


def _server_of(host: str) -> type[_Server]:
    return _ServerV6 if ":" in host else _Server


def _credentials(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return user, password
    return "", ""
