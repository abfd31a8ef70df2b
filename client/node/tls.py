"""Whether the SuperLink can be reached and recognised, and whether the clock allows it."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from pathlib import Path

from cryptography import x509

from client.node.findings import Finding, NodeReport
from client.node.settings import NodeSettings

SOON_DAYS = 30
CONNECT_SECONDS = 5.0


def check_certificates(path: Path, report: NodeReport, *, now: dt.datetime | None = None) -> None:
    """Whether ``ca`` holds certificates that are valid now.

    A certificate that is not valid *yet* mostly means that the clock is wrong; a node with a clock off by
    five minutes or more is refused by the SuperLink, since it signs the time.
    """
    now = now or dt.datetime.now(dt.UTC)
    try:
        content = path.read_bytes()
        certificates = x509.load_pem_x509_certificates(content)
    except FileNotFoundError:
        report.problems.append(Finding("ca", f"There is no file {path}.", "Ask the operator for ca.crt."))
        return
    except OSError as error:
        report.problems.append(Finding("ca", f"{path} cannot be read: {error.strerror}.", "Check it."))
        return
    except ValueError:
        report.problems.append(
            Finding("ca", f"{path} holds no certificate in PEM.", "Ask the operator for ca.crt.")
        )
        return
    if b"PRIVATE KEY" in content:
        report.problems.append(
            Finding("ca", f"{path} also holds a private key.", "Tell the operator: it should never leave.")
        )
    for certificate in certificates:
        _check_dates(certificate, report, now)
    last = min(certificate.not_valid_after_utc for certificate in certificates)
    report.facts["ca"] = f"valid until {last:%Y-%m-%d}"
    _check_clock(report, now)


def check_connection(settings: NodeSettings, report: NodeReport) -> None:
    """Whether the SuperLink answers, with a certificate that ``ca`` vouches for.

    Not being reached is no problem, only a note: a node keeps trying until it is.
    """
    host, port = settings.host_and_port
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(settings.ca)
        with (
            socket.create_connection((host, port), timeout=CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            report.facts["superlink"] = f"{settings.superlink} answers and is recognised"
    except ssl.SSLCertVerificationError as error:
        report.problems.append(
            Finding(
                "superlink",
                f"{settings.superlink} is not recognised: {error.verify_message}",
                "Ask the operator for the right ca.crt and address; never go on without.",
            )
        )
    except OSError as error:
        report.notes.append(
            Finding(
                "superlink",
                f"{settings.superlink} cannot be reached now: {error.strerror or error}.",
                "The node keeps trying. If it stays so: does the firewall let this machine out to that port?",
            )
        )


def _check_dates(certificate: x509.Certificate, report: NodeReport, now: dt.datetime) -> None:
    name = certificate.subject.rfc4514_string() or "a certificate"
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < first:
        report.problems.append(
            Finding(
                "ca",
                f"{name} is not valid before {first:%Y-%m-%d %H:%M}, and this machine's clock says "
                f"{now:%Y-%m-%d %H:%M} UTC.",
                "Set the clock right (NTP).",
            )
        )
    elif now > last:
        report.problems.append(
            Finding(
                "ca",
                f"{name} has expired on {last:%Y-%m-%d}; this machine's clock says {now:%Y-%m-%d}.",
                "Ask the operator for a new ca.crt, if the clock is right.",
            )
        )
    elif now > last - dt.timedelta(days=SOON_DAYS):
        report.notes.append(
            Finding("ca", f"{name} expires on {last:%Y-%m-%d}.", "Ask the operator for a new ca.crt in time.")
        )


def _check_clock(report: NodeReport, now: dt.datetime) -> None:
    # The program cannot be younger than now.
    written = dt.datetime.fromtimestamp(Path(__file__).stat().st_mtime, dt.UTC)
    if now < written - dt.timedelta(days=1):
        report.notes.append(
            Finding(
                "clock",
                f"The clock says {now:%Y-%m-%d}, but this program was installed on {written:%Y-%m-%d}.",
                "Set the clock right (NTP): a SuperLink refuses nodes that are off by five minutes.",
            )
        )
