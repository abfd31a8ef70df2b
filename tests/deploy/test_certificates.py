"""The own authority and the server's certificate: made, renewed, checked, refused."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from pathlib import Path

import pytest

from deploy.certificates import (
    AUTHORITY,
    AUTHORITY_KEY,
    SERVER,
    SERVER_KEY,
    certificate_statuses,
    check_certificates,
    make_certificates,
    renew_certificates,
)
from reconsent.errors import DeployError

NOW = dt.datetime(2030, 5, 1, 12, tzinfo=dt.UTC)


def days(number: float) -> dt.timedelta:
    return dt.timedelta(days=number)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def shake_hands(directory: Path, host: str, trusted: Path) -> str:
    """A real TLS handshake with the server certificate; the error, or nothing."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / SERVER, directory / SERVER_KEY)
    client = ssl.create_default_context(cafile=str(trusted))
    left, right = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(right, server_side=True):
                pass
        except (ssl.SSLError, OSError):
            right.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(left, server_hostname=host):
            return ""
    except ssl.SSLError as error:
        return str(error)
    finally:
        left.close()
        thread.join()


def test_made_certificates_are_accepted_by_tls(tmp_path: Path) -> None:
    """A client that trusts the authority accepts the names asked for and the local ones, no other."""
    make_certificates(tmp_path, ["superlink.clinic.example", "192.0.2.7"])
    for host in ("superlink.clinic.example", "192.0.2.7", "localhost", "127.0.0.1"):
        assert shake_hands(tmp_path, host, tmp_path / AUTHORITY) == ""
    assert "mismatch" in shake_hands(tmp_path, "other.example", tmp_path / AUTHORITY)


def test_foreign_authority_is_refused_by_tls(tmp_path: Path) -> None:
    """Who trusts another authority of the same name does not accept the server."""
    make_certificates(tmp_path / "ours")
    make_certificates(tmp_path / "theirs")
    problem = shake_hands(tmp_path / "ours", "localhost", tmp_path / "theirs" / AUTHORITY)
    assert "verify failed" in problem


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """Both private keys have mode 0600, from the first byte on: they are created so."""
    make_certificates(tmp_path)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in (AUTHORITY_KEY, SERVER_KEY)} == {0o600}


def test_making_again_changes_nothing(tmp_path: Path) -> None:
    """What is whole stays as it is, byte for byte."""
    make_certificates(tmp_path)
    before = contents(tmp_path)
    make_certificates(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("lost", [SERVER, SERVER_KEY])
def test_half_made_server_certificate_is_completed(tmp_path: Path, lost: str) -> None:
    """A run that was killed between key and certificate is made up for, under the same authority."""
    make_certificates(tmp_path)
    before = contents(tmp_path)
    (tmp_path / lost).unlink()
    make_certificates(tmp_path)
    after = contents(tmp_path)
    assert after[AUTHORITY] == before[AUTHORITY]
    assert shake_hands(tmp_path, "localhost", tmp_path / AUTHORITY) == ""


def test_interrupted_renewal_is_completed(tmp_path: Path) -> None:
    """A new key beside the old certificate is told of by name, and mended by the next make."""
    make_certificates(tmp_path / "a")
    make_certificates(tmp_path / "b")
    (tmp_path / "a" / SERVER_KEY).write_bytes((tmp_path / "b" / SERVER_KEY).read_bytes())
    with pytest.raises(DeployError, match="is not the key of"):
        certificate_statuses(tmp_path / "a")
    make_certificates(tmp_path / "a")
    assert shake_hands(tmp_path / "a", "localhost", tmp_path / "a" / AUTHORITY) == ""


def test_renewing_keeps_authority_and_names(tmp_path: Path) -> None:
    """Sites that trust the old authority accept the renewed certificate under the old names."""
    make_certificates(tmp_path, ["superlink.clinic.example"], days=1)
    before = contents(tmp_path)
    kept = tmp_path / "elsewhere"
    (tmp_path / "ca.key").rename(kept)
    with pytest.raises(DeployError, match="no private key") as caught:
        renew_certificates(tmp_path)
    assert "Bring it back" in caught.value.remedy
    kept.rename(tmp_path / "ca.key")
    renew_certificates(tmp_path, days=100)
    after = contents(tmp_path)
    assert after[AUTHORITY] == before[AUTHORITY] and after[AUTHORITY_KEY] == before[AUTHORITY_KEY]
    assert after[SERVER] != before[SERVER] and after[SERVER_KEY] != before[SERVER_KEY]
    assert shake_hands(tmp_path, "superlink.clinic.example", tmp_path / AUTHORITY) == ""
    assert certificate_statuses(tmp_path)[1].days_left == 99


def test_a_name_that_is_missing_is_not_passed_over(tmp_path: Path) -> None:
    """Asking for a further name beside a whole certificate says how to get it, instead of pretending."""
    make_certificates(tmp_path)
    with pytest.raises(DeployError, match=r"not good for other\.example"):
        make_certificates(tmp_path, ["other.example"])


@pytest.mark.parametrize(("left", "warned"), [(31, False), (30, False), (29, True), (0.5, True)])
def test_warns_under_thirty_days(tmp_path: Path, left: float, warned: bool) -> None:
    """The check warns when fewer than 30 whole days are left, and only then."""
    make_certificates(tmp_path, days=100, now=NOW)
    warnings = check_certificates(tmp_path, NOW + days(100 - left))
    assert bool(warnings) is warned
    assert all("reconsent certs renew" in warning for warning in warnings)


def test_refuses_after_expiry(tmp_path: Path) -> None:
    """At the very end, and later, the check refuses with the date and what to do; the status can be shown."""
    make_certificates(tmp_path, days=100, now=NOW)
    for late in (0, 1):
        with pytest.raises(DeployError, match="expired on 2030-08-09") as caught:
            check_certificates(tmp_path, NOW + days(100 + late))
        assert "certs renew" in caught.value.remedy
    assert certificate_statuses(tmp_path, NOW + days(101))[1].days_left < 0


def test_expired_authority_signs_nothing(tmp_path: Path) -> None:
    """Renewing under an expired authority is refused; a certificate never outlives its authority."""
    make_certificates(tmp_path, now=NOW)
    authority, server = renew_certificates(tmp_path, days=3650, now=NOW + days(3000))
    assert server.expires == authority.expires
    with pytest.raises(DeployError, match="can sign nothing"):
        renew_certificates(tmp_path, now=NOW + days(3651))


def test_foreign_server_certificate_is_named(tmp_path: Path) -> None:
    """A certificate of another authority is told from our own, though both have one name."""
    make_certificates(tmp_path / "a")
    make_certificates(tmp_path / "b")
    for name in (SERVER, SERVER_KEY):
        (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(DeployError, match="was not signed by"):
        certificate_statuses(tmp_path / "a")


@pytest.mark.parametrize("name", [AUTHORITY, SERVER, SERVER_KEY])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    """A file that is no certificate or key is named, and nothing is overwritten."""
    make_certificates(tmp_path)
    (tmp_path / name).write_bytes(b"-----BEGIN CERTIFICATE-----\nnonsense\n")
    before = contents(tmp_path)
    with pytest.raises(DeployError, match=name):
        make_certificates(tmp_path)
    assert contents(tmp_path) == before


def test_missing_files_say_how_to_make_them(tmp_path: Path) -> None:
    """Checking an empty directory names the missing file and the command."""
    with pytest.raises(DeployError, match="There is no certificate") as caught:
        check_certificates(tmp_path)
    assert "certs make" in caught.value.remedy


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    """A host that is not ASCII is refused in words."""
    with pytest.raises(DeployError, match="neither a host name nor an address"):
        make_certificates(tmp_path, ["kliniküm.example"])
