"""An own certification authority, and the SuperLink's certificate: made, renewed and checked.

Nodes trust ``ca.crt`` alone. Renewing gives the server a new key and certificate under the same authority,
so nothing has to be handed to the sites again.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reconsent.errors import DeployError
from reconsent.files import write_atomically, write_private
from server.persistence.state import explaining_os_errors

AUTHORITY, AUTHORITY_KEY = "ca.crt", "ca.key"
SERVER, SERVER_KEY = "server.pem", "server.key"

AUTHORITY_DAYS = 3650
SERVER_DAYS = 365
WARNING_DAYS = 30
ALWAYS = ("localhost", "127.0.0.1")
"""Names that every server certificate has: the processes on the server's own machine use them."""

# Clocks of hospitals differ; without this a new certificate would be refused as not valid yet.
_SKEW = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """How long a certificate is still good for.

    Attributes
    ----------
    path
        The file.
    subject
        Its common name.
    hosts
        Names and addresses it is good for; none for the authority.
    expires
        When it ceases to be valid.
    days_left
        Whole days until then; negative afterwards.
    """

    path: Path
    subject: str
    hosts: tuple[str, ...]
    expires: dt.datetime
    days_left: int

    @property
    def expiring(self) -> bool:
        """Whether it should be renewed now."""
        return self.days_left < WARNING_DAYS


def make_certificates(
    directory: Path, hosts: Sequence[str] = (), *, days: int = SERVER_DAYS, now: dt.datetime | None = None
) -> list[CertificateStatus]:
    """Make what is missing: the authority, and the server certificate under it; what is whole stays.

    Parameters
    ----------
    directory
        Where they lie; made if missing.
    hosts
        Names and addresses by which the sites reach the SuperLink. ``localhost`` and ``127.0.0.1`` are added.
    days
        Validity of the server certificate.
    now
        Present time; the clock's if ``None``.

    Raises
    ------
    DeployError
        If there is a server certificate without all of ``hosts``, or files that are not what they should be.
    StateError
        If the directory cannot be written.
    """
    now = now or dt.datetime.now(dt.UTC)
    with explaining_os_errors(f"The directory of certificates {directory}"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (directory / AUTHORITY).is_file():
            _make_authority(directory, now)
        if not _server_is_whole(directory):
            _make_server(directory, hosts, days, now)
    statuses = certificate_statuses(directory, now)
    missing = sorted(set(hosts) - set(statuses[1].hosts))
    if missing:
        raise DeployError(
            f"The certificate {directory / SERVER} is not good for {', '.join(missing)}.",
            "Renew it with these names: `reconsent certs renew --host NAME`.",
        )
    return statuses


def renew_certificates(
    directory: Path, hosts: Sequence[str] = (), *, days: int = SERVER_DAYS, now: dt.datetime | None = None
) -> list[CertificateStatus]:
    """Give the server a new key and certificate; the authority, and so what the sites trust, stays.

    Parameters
    ----------
    directory, days, now
        As for :func:`make_certificates`.
    hosts
        As there; if none is given, those of the present certificate.

    Raises
    ------
    DeployError
        If the authority or its key is missing, damaged or expired.
    """
    now = now or dt.datetime.now(dt.UTC)
    authority = _read_certificate(directory / AUTHORITY)
    if authority.not_valid_after_utc <= now:
        raise DeployError(
            f"The authority {directory / AUTHORITY} expired on {authority.not_valid_after_utc:%Y-%m-%d}; "
            "it can sign nothing any more.",
            "Make a new one in another directory, and hand its ca.crt to every site.",
        )
    if not hosts and (directory / SERVER).is_file():
        hosts = _hosts(_read_certificate(directory / SERVER))
    if not (directory / AUTHORITY_KEY).is_file():
        raise DeployError(
            f"There is no private key {directory / AUTHORITY_KEY}; with it the authority signs.",
            "Bring it back from where it is kept, for as long as this takes. If it is lost, make a new "
            "authority in another directory, and hand its ca.crt to every site.",
        )
    with explaining_os_errors(f"The directory of certificates {directory}"):
        _make_server(directory, hosts, days, now)
    return certificate_statuses(directory, now)


def certificate_statuses(directory: Path, now: dt.datetime | None = None) -> list[CertificateStatus]:
    """The authority's status, and the server's; also of expired ones.

    Raises
    ------
    DeployError
        If a file is missing or is no certificate, the server's is not signed by the authority, or its key
        does not belong to it.
    """
    now = now or dt.datetime.now(dt.UTC)
    authority = _read_certificate(directory / AUTHORITY)
    server = _read_certificate(directory / SERVER)
    try:
        server.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise DeployError(
            f"{directory / SERVER} was not signed by {directory / AUTHORITY}.",
            "Make it again: `reconsent certs renew`.",
        ) from None
    if _read_key(directory / SERVER_KEY).public_key() != server.public_key():
        raise DeployError(
            f"{directory / SERVER_KEY} is not the key of {directory / SERVER}.",
            "Make both again: `reconsent certs renew`.",
        )
    return [_status(directory / AUTHORITY, authority, now), _status(directory / SERVER, server, now)]


def check_certificates(directory: Path, now: dt.datetime | None = None) -> list[str]:
    """Warnings about certificates that expire within 30 days.

    Raises
    ------
    DeployError
        If one has expired or cannot be used.
    """
    warnings = []
    for status in certificate_statuses(directory, now):
        whose = "authority" if status.path.name == AUTHORITY else "server certificate"
        when = f"{status.expires:%Y-%m-%d %H:%M} UTC"
        remedy = (
            "Renew it: `reconsent certs renew`."
            if status.path.name == SERVER
            else "Make a new one in another directory, and hand its ca.crt to every site."
        )
        if status.expires <= (now or dt.datetime.now(dt.UTC)):
            raise DeployError(
                f"The {whose} {status.path} expired on {when}: no site can connect with it.", remedy
            )
        if status.expiring:
            days = "1 day" if status.days_left == 1 else f"{status.days_left} days"
            warnings.append(f"The {whose} {status.path} expires in {days}, on {when}. {remedy}")
    return warnings


def _make_authority(directory: Path, now: dt.datetime) -> None:
    # Without its certificate nobody can have trusted an authority yet: a lone key is of a killed run.
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Reconsent certification authority")])
    certificate = (
        _builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    write_private(directory / AUTHORITY_KEY, _pem(key))
    write_atomically(directory / AUTHORITY, certificate.public_bytes(Encoding.PEM))


def _make_server(directory: Path, hosts: Collection[str], days: int, now: dt.datetime) -> None:
    authority = _read_certificate(directory / AUTHORITY)
    authority_key = _read_key(directory / AUTHORITY_KEY)
    if authority_key.public_key() != authority.public_key():
        raise DeployError(
            f"{directory / AUTHORITY_KEY} is not the key of {directory / AUTHORITY}.",
            "Restore the right key from a backup.",
        )
    names = list(dict.fromkeys([*hosts, *ALWAYS]))
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]),
            authority.subject,
            key.public_key(),
            now,
            days,
            latest=authority.not_valid_after_utc,
        )
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, SHA256())
    )
    write_private(directory / SERVER_KEY, _pem(key))
    write_atomically(directory / SERVER, certificate.public_bytes(Encoding.PEM))


def _server_is_whole(directory: Path) -> bool:
    """Whether certificate and key are there and belong together: a killed renewal leaves them apart."""
    if not ((directory / SERVER).is_file() and (directory / SERVER_KEY).is_file()):
        return False
    certificate = _read_certificate(directory / SERVER)
    return _read_key(directory / SERVER_KEY).public_key() == certificate.public_key()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    days: int,
    latest: dt.datetime | None = None,
) -> x509.CertificateBuilder:
    end = now + dt.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(end if latest is None else min(end, latest))
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise DeployError(
            f"'{host}' is neither a host name nor an address.",
            "Give names such as superlink.clinic.example (in ASCII), or 192.0.2.7; without a port.",
        ) from None


def _hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names)


def _status(path: Path, certificate: x509.Certificate, now: dt.datetime) -> CertificateStatus:
    name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    expires = certificate.not_valid_after_utc
    subject = str(name[0].value) if name else ""
    return CertificateStatus(path, subject, _hosts(certificate), expires, (expires - now).days)


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path, "certificate"))
    except ValueError as error:
        raise DeployError(f"{path} is not a certificate: {error}.", "Restore it from a backup.") from None


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(_read(path, "private key"), password=None)
    except (ValueError, TypeError) as error:
        raise DeployError(f"{path} is not a private key: {error}.", "Restore it from a backup.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DeployError(
            f"{path} is not a key on an elliptic curve.", "Make it again: `reconsent certs renew`."
        )
    return key


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DeployError(f"There is no {what} {path}.", "Make it: `reconsent certs make`.") from None
    except OSError as error:
        raise DeployError(
            f"The {what} {path} cannot be read: {error.strerror}.", "Check its owner and permissions."
        ) from None


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
