"""Runs the console's web server."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from cryptography import x509
from starlette.types import ASGIApp

from cli.console.application import application
from cli.console.opened import OpenState
from cli.console.sessions import LONGEST_SECONDS, Sessions
from cli.console.visits import Console
from reconsent.errors import ConfigError
from reconsent.log_lines import start_logging
from server.persistence import ConsoleUsers

MOST_CONNECTIONS = 200
"""At once, idle ones among them; further ones are told to come later."""

_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int


def serve(
    state: Path,
    address: Address,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    names: Sequence[str] = (),
    idle_seconds: float,
    tell: Callable[[str], object],
) -> None:
    """Serve until the process is told to stop.

    Raises
    ------
    ConfigError
        If the address is taken, or the certificate cannot be used.
    StateError
        If there is no state, or it cannot be used.
    """
    secure = certificate is not None
    known = {*_LOCAL, address.host, *names}
    if certificate is not None and key is not None:
        known |= _check_certificate(certificate, key)
    start_logging()
    opened = OpenState(state)
    opened.consortium()
    if not ConsoleUsers(opened.state()).all():
        tell("Nobody may log in yet: `reconsent console user add NAME --role officer`.")
    console = Console(opened, Sessions(idle_seconds, LONGEST_SECONDS), secure=secure)
    with closing(_listen(address)) as listening, closing(opened):
        config = server_config(application(console, known), certificate, key)
        port = listening.getsockname()[1]
        host = f"[{address.host}]" if ":" in address.host else address.host
        tell(f"Console on {'https' if secure else 'http'}://{host}:{port}/")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def server_config(app: ASGIApp, certificate: Path | None = None, key: Path | None = None) -> uvicorn.Config:
    """How the web server is run."""
    return uvicorn.Config(
        app,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_level="warning",
        lifespan="off",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=5,
    )


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address.host, address.port))
        # Before anybody is told the address: whoever comes at once must wait, not be turned away.
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"The console cannot listen on {address.host}:{address.port}: {error.strerror}.",
            "Choose another --address.",
        ) from None
    return listening


def _check_certificate(certificate: Path, key: Path) -> set[str]:
    """The names in a certificate, if it can be used with its key."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The certificate {certificate} or its key {key} cannot be used: {error}.",
            "Both in PEM; the key must be that of the certificate.",
        ) from None
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
    return {*names.get_values_for_type(x509.DNSName), *addresses}
