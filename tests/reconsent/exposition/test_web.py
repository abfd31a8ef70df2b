"""The HTTP server of an exporter: pages, passwords, TLS, and the web configuration they come from."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from pathlib import Path

import bcrypt
import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry, Gauge

from deploy.certificates import AUTHORITY, SERVER, SERVER_KEY, make_certificates
from reconsent.errors import ConfigError
from reconsent.exposition import MetricsServer, WebConfigFile

PASSWORD = "correct horse"  # noqa: S105 - of this test alone


@pytest.fixture
def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    Gauge("reconsent_answer", "An answer.", registry=found).set(42)
    return found


def hashed(password: str) -> str:
    # What `htpasswd -nB` writes.
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4)).decode().replace("$2b$", "$2y$")


def written(path: Path, table: object) -> Path:
    path.write_text(yaml.safe_dump(table), encoding="utf-8")
    return path


def self_signed(path: Path) -> Path:
    """A client's certificate and key in one file, which is its own authority."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "prometheus")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = Encoding.PEM
    private = key.private_bytes(pem, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(pem))
    return path


def test_pages(registry: CollectorRegistry) -> None:
    """Metrics, liveness, readiness with its reason, an index; anything else is not found, or not allowed."""
    reasons = ["there is no state"]
    with (
        MetricsServer(registry, "127.0.0.1:0", unready=lambda: reasons[0]) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client,
    ):
        assert "reconsent_answer 42.0" in client.get("/metrics").text
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.text) == (503, "there is no state\n")
        reasons[0] = ""
        assert client.get("/readyz").status_code == 200
        assert "/metrics" in client.get("/").text
        assert client.get("/etc/passwd").status_code == 404
        assert client.post("/metrics").status_code == 501
        head = client.head("/metrics")
        assert (head.status_code, head.text) == (200, "")
        openmetrics = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
        assert openmetrics.text.endswith("# EOF\n")


def test_passwords(registry: CollectorRegistry, tmp_path: Path) -> None:
    """Only a known user with the right password reads metrics, or why there are none; health needs none."""
    config = written(tmp_path / "web.yml", {"basic_auth_users": {"prometheus": hashed(PASSWORD)}})
    web = WebConfigFile(config)
    with (
        MetricsServer(registry, "127.0.0.1:0", web=web, unready=lambda: "no database at h:1") as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client,
    ):
        unsaid, said = client.get("/readyz"), client.get("/readyz", auth=("prometheus", PASSWORD))
        assert (unsaid.status_code, said.status_code) == (503, 503)
        assert "h:1" not in unsaid.text
        assert "h:1" in said.text
        refused = client.get("/metrics")
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"].startswith("Basic")
        assert "reconsent_answer" not in refused.text
        for user, password in (("prometheus", "wrong"), ("nobody", "nobody"), ("", "")):
            assert client.get("/metrics", auth=(user, password)).status_code == 401
        for header in ("Basic !!!", "Bearer abc", "Basic"):
            assert client.get("/metrics", headers={"Authorization": header}).status_code == 401
        for _ in range(2):
            assert client.get("/metrics", auth=("prometheus", PASSWORD)).status_code == 200
        assert client.get("/healthz").status_code == 200
        # Taken out of the file, a password that was right a moment ago is of no use any more.
        written(config, {"basic_auth_users": {"prometheus": hashed("another one")}})
        assert client.get("/metrics", auth=("prometheus", PASSWORD)).status_code == 401
        config.write_text("basic_auth_users: [", encoding="utf-8")
        assert client.get("/metrics", auth=("prometheus", "another one")).status_code == 500


def test_tls(registry: CollectorRegistry, tmp_path: Path) -> None:
    """It speaks TLS with the file's certificate, takes up a renewed one; a plain client gets nothing."""
    make_certificates(tmp_path, days=20, now=dt.datetime.now(dt.UTC))
    tls = {"cert_file": SERVER, "key_file": SERVER_KEY}
    web = WebConfigFile(written(tmp_path / "web.yml", {"tls_server_config": tls}))
    trusted = ssl.create_default_context(cafile=tmp_path / AUTHORITY)

    def certificate(port: int) -> bytes | None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=5)
        with plain, trusted.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            return secure.getpeercert(binary_form=True)

    with MetricsServer(registry, "127.0.0.1:0", web=web) as server:
        page = httpx.get(f"https://127.0.0.1:{server.port}/metrics", verify=trusted, trust_env=False)
        assert "reconsent_answer 42.0" in page.text
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{server.port}/metrics", trust_env=False)
        before = certificate(server.port)
        (tmp_path / SERVER).unlink()
        (tmp_path / SERVER_KEY).unlink()
        make_certificates(tmp_path)
        assert certificate(server.port) not in (None, before)


def test_clients_need_a_certificate_if_asked(registry: CollectorRegistry, tmp_path: Path) -> None:
    """With RequireAndVerifyClientCert only a client with a certificate of that authority is answered."""
    make_certificates(tmp_path)
    client = self_signed(tmp_path / "client.pem")
    tls = {
        "cert_file": SERVER,
        "key_file": SERVER_KEY,
        "client_auth_type": "RequireAndVerifyClientCert",
        "client_ca_file": client.name,
    }
    web = WebConfigFile(written(tmp_path / "web.yml", {"tls_server_config": tls}))
    without = ssl.create_default_context(cafile=tmp_path / AUTHORITY)
    with_one = ssl.create_default_context(cafile=tmp_path / AUTHORITY)
    with_one.load_cert_chain(client)
    with MetricsServer(registry, "127.0.0.1:0", web=web) as server:
        url = f"https://127.0.0.1:{server.port}/metrics"
        with pytest.raises(httpx.HTTPError):
            httpx.get(url, verify=without, trust_env=False)
        assert web.context is not None and web.context.verify_mode is ssl.CERT_REQUIRED
        answer = httpx.get(url, verify=with_one, trust_env=False)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"basic_auth_users": {"a": "secret in the clear"}}, "no bcrypt hash"),
        ({"basic_auth": {}}, "basic_auth"),
        ({"tls_server_config": {"cert_file": "a.pem"}}, "key_file"),
        ({"tls_server_config": {"cert_file": "a.pem", "key_file": "b.pem"}}, "cannot be used"),
        (
            {
                "tls_server_config": {
                    "cert_file": "a",
                    "key_file": "b",
                    "client_auth_type": "RequestClientCert",
                }
            },
            "client_auth_type",
        ),
        (
            {
                "tls_server_config": {
                    "cert_file": "a",
                    "key_file": "b",
                    "client_auth_type": "RequireAndVerifyClientCert",
                }
            },
            "client_ca_file",
        ),
        ([1, 2], "web configuration"),
    ],
)
def test_mistakes_are_named(table: object, words: str, tmp_path: Path) -> None:
    """A wrong file is refused at the start, with what is wrong in it, and never shows a password."""
    with pytest.raises(ConfigError, match=words) as caught:
        WebConfigFile(written(tmp_path / "web.yml", table))
    assert "secret in the clear" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is an error, not an exporter without a password."""
    with pytest.raises(ConfigError, match=r"none\.yml"):
        WebConfigFile(tmp_path / "none.yml")


def test_addresses(registry: CollectorRegistry) -> None:
    """What is no address, and a port that is taken, are refused in words."""
    for address in ("9464", "localhost:", "127.0.0.1:70000", "::1:9464", ""):
        with pytest.raises(ConfigError, match="no address"):
            MetricsServer(registry, address)
    with (
        MetricsServer(registry, "127.0.0.1:0") as server,
        pytest.raises(ConfigError, match="cannot be served"),
    ):
        MetricsServer(registry, f"127.0.0.1:{server.port}")
