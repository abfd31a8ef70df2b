"""``reconsent site``: keys, checks, explanation and the command that becomes the node."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from flwr.common.config import parse_config_args
from typer.testing import CliRunner, Result

from cli.site import app
from client.node.checks import check_node
from client.node.command import node_command, quoted
from client.node.findings import NodeReport
from client.node.keys import read_private_key
from client.node.settings import load_node
from client.node.tls import check_certificates
from client.site import identify_site
from client.site_log import log_path
from reconsent.config import dump_consortium
from reconsent.errors import ConfigError, ReconsentError
from reconsent.log_lines import FORMAT_VARIABLE
from server.node_keys import fingerprint
from tests.client.hospital import Hospital

NOW = dt.datetime.now(dt.UTC)


def invoke(*arguments: object) -> Result:
    """Run ``reconsent site …`` in this process; our errors come through as they are."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, ReconsentError):
        raise result.exception
    return result


def certificate(path: Path, *, days: int = 365, begins: int = -1) -> None:
    """A self-signed certificate for 127.0.0.1 at ``path``, and its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "consortium")])
    host = x509.DNSName("localhost")
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + dt.timedelta(days=begins))
        .not_valid_after(NOW + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(Encoding.PEM))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.with_suffix(".secret").write_bytes(secret)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital's volumes, made once."""
    return Hospital.built(tmp_path_factory.mktemp("hospital")).data


@pytest.fixture
def node(tmp_path: Path, built: Path) -> Path:
    """A SITE.toml with which everything is in order, but that no SuperLink is there."""
    (tmp_path / "scans").symlink_to(built)
    hospital = Hospital(tmp_path)
    hospital.file.write_text(dump_consortium(hospital.consortium))
    invoke("init", tmp_path, "--name", "north")
    invoke("key", tmp_path / "node.key")
    certificate(tmp_path / "ca.crt")
    path = tmp_path / "site.toml"
    text = path.read_text().replace("consortium.example:9092", f"localhost:{free_port()}")
    path.write_text(text + f"runtime-port = {free_port()}\n")
    return path


def change(node: Path, key: str, value: object) -> None:
    """Set one key of a SITE.toml."""
    lines = [line for line in node.read_text().splitlines() if not re.match(rf"{key} *=", line)]
    node.write_text("\n".join([*lines, f"{key} = {json.dumps(value)}", ""]))


def report(node: Path, *, connect: bool = False) -> NodeReport:
    """What the check finds."""
    return check_node(load_node(node), connect=connect)


def test_a_wrong_log_format_is_found(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check names the variable before the node starts, and nothing where it is right."""
    for value, found in (("xml", True), ("json", False), ("", False)):
        monkeypatch.setenv(FORMAT_VARIABLE, value)
        keys = [problem.key for problem in report(node).problems]
        assert (FORMAT_VARIABLE in keys) is found


# ---- keys -----------------------------------------------------------------------------------------------


def test_key_pair(tmp_path: Path) -> None:
    """The private key is its owner's alone, of curve P-384, and the server computes the same fingerprint."""
    shown = invoke("key", tmp_path / "node.key").output
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600
    assert read_private_key(tmp_path / "node.key").curve.name == "secp384r1"
    public = (tmp_path / "node.key.pub").read_bytes()
    assert public.startswith(b"ecdsa-sha2-nistp384 ")
    assert fingerprint(public) in shown


def test_key_is_never_overwritten(tmp_path: Path) -> None:
    """Where either half exists, also as a dangling link, nothing is written."""
    for existing in ("a", "a.pub"):
        (tmp_path / existing).symlink_to(tmp_path / "nowhere")
        with pytest.raises(ConfigError, match="never overwritten"):
            invoke("key", tmp_path / "a")
        (tmp_path / existing).unlink()
        assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="cannot be written"):
        invoke("key", tmp_path / "no" / "directory")


def test_umask_does_not_open_the_key(tmp_path: Path) -> None:
    """A careless umask leaves the private key at mode 600."""
    before = os.umask(0)
    try:
        invoke("key", tmp_path / "node.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600


# ---- checks ---------------------------------------------------------------------------------------------


def test_node_in_order(node: Path) -> None:
    """With everything in place there is no problem, and the check ends with status 0."""
    found = report(node)
    assert not found.problems
    assert not found.notes
    assert found.facts["data"].startswith("4 patients, 8 slices")
    result = invoke("run", node, "--check")
    assert result.exit_code == 0, result.output
    assert "cannot be reached now" in " ".join(result.output.split()), "a note: the node keeps trying"


def test_everything_wrong_is_said_at_once(node: Path) -> None:
    """Seven things that are wrong give seven problems in one run, each with its key, and status 1."""
    root = node.parent
    (root / "node.key").chmod(0o644)
    (root / "ca.crt").write_text("no certificate")
    (root / "policy.toml").write_text("may-trian = true")
    change(node, "data", "nowhere")
    change(node, "name", "nroth")
    change(node, "log", "gone/log")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        change(node, "health-port", taken.getsockname()[1])
        found = {problem.key for problem in report(node).problems}
        result = invoke("run", node, "--check")
    assert found == {"key", "ca", "policy", "data", "name", "log", "health-port"}
    assert result.exit_code == 1
    for words in ("chmod 600", "did you mean 'may-train'", "Sites are: north, south", "7 problems"):
        assert words in " ".join(result.output.split())


def test_problem_keeps_the_node_from_starting(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --check a problem ends the command before anything is executed."""

    def never(*_: object) -> None:
        raise AssertionError("it started")

    monkeypatch.setattr("client.node.launch.os.execve", never)
    (node.parent / "node.key").chmod(0o640)
    assert invoke("run", node, "--skip-data").exit_code == 1


def test_a_misspelt_patient_who_withdrew_is_named(node: Path) -> None:
    """The list of the policy is compared with the data: who is misspelt there would be trained on."""
    policy = node.parent / "policy.toml"
    policy.write_text(policy.read_text() + '\nwithdrawn-patients = ["p-1", "p-9"]\n')
    (note,) = report(node).notes
    assert "p-9" in note.reason and "p-1" not in note.reason
    assert "without 2 patients who withdrew" in invoke("run", node, "--explain").output


def test_data_that_cannot_be_trained_on(node: Path) -> None:
    """A bad volume is found by the code of `reconsent data check`, before the node starts."""
    (node.parent / "scans").unlink()
    (node.parent / "scans").mkdir()
    (node.parent / "scans" / "bad.h5").write_bytes(b"nothing")
    reasons = [problem.reason for problem in report(node).problems]
    assert len(reasons) == 2
    assert "not an HDF5 file" in reasons[0]
    assert "no patients" in reasons[1]


@pytest.mark.parametrize(
    ("days", "begins", "words"),
    [(-1, -9, "has expired"), (9, 2, "not valid before"), (9, -9, ""), (400, -1, "")],
)
def test_dates_of_the_certificate(days: int, begins: int, words: str, tmp_path: Path) -> None:
    """An expired certificate and one from the future are problems; one that ends soon is a note."""
    certificate(tmp_path / "ca.crt", days=days, begins=begins)
    found = NodeReport()
    check_certificates(tmp_path / "ca.crt", found)
    assert [words in problem.reason for problem in found.problems] == ([True] if words else [])
    assert [note.key for note in found.notes] == (["ca"] if days == 9 and not words else [])


def test_authority_with_its_private_key(node: Path) -> None:
    """A ca file that holds a private key is refused: it should never have left the operator."""
    root = node.parent
    root.joinpath("ca.crt").write_bytes(
        root.joinpath("ca.crt").read_bytes() + root.joinpath("ca.secret").read_bytes()
    )
    assert [problem.key for problem in report(node).problems] == ["ca"]


@contextmanager
def superlink(certificate_file: Path) -> Iterator[int]:
    """A TLS server with that certificate; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, certificate_file.with_suffix(".secret"))
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            try:
                context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(server.getsockname()[1])
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def test_superlink_is_recognised_or_not(node: Path, tmp_path: Path) -> None:
    """A server with the right certificate is a fact; with another one, or another name, it is a problem."""
    with superlink(tmp_path / "ca.crt") as port:
        change(node, "superlink", f"localhost:{port}")
        assert "is recognised" in report(node, connect=True).facts["superlink"]
        change(node, "superlink", f"127.0.0.1:{port}")
        assert [problem.key for problem in report(node, connect=True).problems] == ["superlink"]
    certificate(tmp_path / "other.crt")
    with superlink(tmp_path / "other.crt") as port:
        change(node, "superlink", f"localhost:{port}")
        assert [problem.key for problem in report(node, connect=True).problems] == ["superlink"]


def test_worth_knowing(node: Path) -> None:
    """Withdrawal, foreign code, an open policy and no log are notes: the node may start all the same."""
    policy = node.parent / "policy.toml"
    policy.write_text(f'withdrawn = true\ntrusted-code = ["{"0" * 64}"]')
    policy.chmod(0o666)
    found = report(node)
    assert not found.problems
    assert [note.key for note in found.notes] == ["policy"] * 3
    lines = [line for line in node.read_text().splitlines() if not line.startswith(("policy", "log"))]
    node.write_text("\n".join(lines))
    assert [note.key for note in report(node).notes] == ["policy", "log"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('polcy = "x"', "did you mean 'policy'"),
        ('superlink = "https://host"', "superlink"),
        ("runtime-port = 0", "runtime-port"),
        ('name = "North Clinic"', "name"),
    ],
)
def test_site_file_is_checked(line: str, words: str, node: Path) -> None:
    """A misspelt key or a value out of range is refused by name."""
    key = line.partition(" ")[0]
    kept = [text for text in node.read_text().splitlines() if not text.startswith(key)]
    node.write_text("\n".join([*kept, line]))
    with pytest.raises(ConfigError, match=words):
        load_node(node)


# ---- whose code is run ----------------------------------------------------------------------------------


def test_installed_code_comes_first(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node finds our flwr-clientapp before Flower's, unless the site wants what the server sends."""
    started: list[dict[str, str]] = []
    monkeypatch.setattr("client.node.launch.os.execve", lambda _program, _arguments, e: started.append(e))
    waiting: list[Path] = []
    monkeypatch.setattr("client.node.launch.start_warm", lambda place, _environment: waiting.append(place))
    change(node, "flower-home", "it's flower")
    assert invoke("run", node, "--skip-data").exit_code == 0
    found = shutil.which("flwr-clientapp", path=started[0]["PATH"])
    assert found == str(node.parent / "it's flower" / "reconsent" / "bin" / "flwr-clientapp")
    environment = {**started[0], "PYTHONPATH": str(Path(__file__).parents[2])}
    shown = subprocess.run([found, "--help"], env=environment, capture_output=True, text=True, check=True)
    assert "--runtime-api-address" in shown.stdout
    assert waiting == [Path(found).parent]
    change(node, "code", "received")
    assert [note.key for note in report(node).notes] == ["code"]
    path = node_command(load_node(node)).environment["PATH"]
    assert shutil.which("flwr-clientapp", path=path) == str(Path(sys.executable).with_name("flwr-clientapp"))


# ---- what is started ------------------------------------------------------------------------------------


def test_command(node: Path) -> None:
    """TLS and the key are always used, paths are absolute, and what is said to the app is read back."""
    settings = load_node(node)
    command = node_command(settings, {"HOME": "/h", "RECONSENT_STATE": "/s", "RECONSENT_SITE_POLICY": "/p"})
    arguments = dict(zip(command.arguments[1::2], command.arguments[2::2], strict=True))
    assert command.arguments[0] == command.program
    assert "--insecure" not in command.arguments
    assert arguments["--root-certificates"] == str(node.parent / "ca.crt")
    assert arguments["--auth-supernode-private-key"] == str(node.parent / "node.key")
    environment = dict(command.environment)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["HOME"] == "/h"
    assert "RECONSENT_STATE" not in environment
    config = parse_config_args([arguments["--node-config"]])
    site = identify_site(config, {"consortium": "/the/server's"}, environment)
    assert site.name == "north"
    assert site.config.data == node.parent / "scans"
    assert environment["RECONSENT_SITE_POLICY"] == str(node.parent / "policy.toml")
    assert log_path(config, environment) == node.parent / "site.log.jsonl"


@pytest.mark.parametrize("value", ["/a b/c", "/ä/ö", "/it's", "C:\\scans", "/a=b", "/x.toml", '/a"b'])
def test_paths_survive_flower(value: str) -> None:
    """Whatever path is accepted arrives at the app as it was."""
    assert parse_config_args([f"site={quoted('north')} data={quoted(value)}"]) == {
        "site": "north",
        "data": value,
    }


@pytest.mark.parametrize("value", ["/it's\"", "/a\nb", "/it's\\b"])
def test_paths_that_flower_cannot_take(value: str) -> None:
    """A path that would arrive changed is refused."""
    with pytest.raises(ConfigError, match="cannot take"):
        quoted(value)


def test_explanation(node: Path) -> None:
    """It names this node's address, files and ports, what its policy allows now, and how to withdraw."""
    change(node, "health-port", 9555)
    (node.parent / "policy.toml").write_text(
        "may-be-evaluated = false\nmax-rounds-a-day = 7\nmax-epsilon = 3\nmax-delta = 1e-6"
    )
    settings = load_node(node)
    text = " ".join(invoke("run", node, "--explain").output.split())
    for words in (
        settings.superlink,
        f"127.0.0.1:{settings.runtime_port}",
        "127.0.0.1:9555",
        str(node.parent / "policy.toml"),
        str(node.parent / "site.log.jsonl"),
        "training: at most 7 rounds a day",
        "evaluating models on the test patients: no",
        "differential privacy: no more than ε = 3 on a patient, in all consortia together and at a δ of "
        "no more than 1e-06",
        "patient identifiers",
        "withdrawn = true",
    ):
        assert words in text
    (node.parent / "policy.toml").write_text("withdrawn = true")
    assert "nothing: this site has withdrawn" in invoke("run", node, "--explain").output
    (node.parent / "policy.toml").write_text("?")
    assert "nothing: the policy cannot be read" in invoke("run", node, "--explain").output


def test_templates_are_not_overwritten(tmp_path: Path) -> None:
    """What was edited stays; the files that are written can be read."""
    invoke("init", tmp_path / "new", "--name", "west")
    assert load_node(tmp_path / "new" / "site.toml").name == "west"
    with pytest.raises(ConfigError, match="exists already"):
        invoke("init", tmp_path / "new")


def test_group_is_part_of_the_command_line() -> None:
    """`reconsent site` is there, and loads neither torch nor Flower for its help."""
    program = (
        "import sys; from cli.main import main\n"
        "try: main(['site', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'flwr'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "node of a hospital" in done.stdout
