"""``reconsent site run`` becomes the real SuperNode: the same process, its signals and its exit status."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from client.node.keys import make_key_pair
from reconsent.config import load_consortium

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; from cli.main import main; main(sys.argv[1:])"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_authority(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "consortium")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=90))
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(Encoding.PEM))


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks at the process in /proc")
def test_command_becomes_the_supernode(tmp_path: Path) -> None:
    """After the checks the process is flower-supernode, serves its health port, and ends on SIGTERM."""
    write_authority(tmp_path / "ca.crt")
    make_key_pair(tmp_path / "node.key")
    (tmp_path / "policy.toml").write_text("")
    health, site = free_port(), load_consortium("tiny").sites[0].name
    (tmp_path / "site.toml").write_text(
        f'name = "{site}"\nsuperlink = "127.0.0.1:{free_port()}"\nca = "ca.crt"\nkey = "node.key"\n'
        f'consortium = "{ROOT / "reconsent" / "presets" / "tiny.toml"}"\npolicy = "policy.toml"\n'
        f'runtime-port = {free_port()}\nhealth-port = {health}\nflower-home = "flower"\n'
    )
    command = [sys.executable, "-c", PROGRAM, "site", "run", str(tmp_path / "site.toml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "output").open("wb") as output:
        node = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 60
            while not serves(health):
                assert node.poll() is None, (tmp_path / "output").read_text()
                assert time.monotonic() < deadline, (tmp_path / "output").read_text()
                time.sleep(0.1)
            assert b"flower-supernode" in Path(f"/proc/{node.pid}/cmdline").read_bytes()
            running = Path(f"/proc/{node.pid}/environ").read_bytes()
            assert b"FLWR_TELEMETRY_ENABLED=0" in running
            assert f"RECONSENT_SITE_POLICY={tmp_path / 'policy.toml'}".encode() in running
            node.send_signal(signal.SIGTERM)
            assert node.wait(20) == 0, (tmp_path / "output").read_text()
        finally:
            node.kill()
            node.wait()


def serves(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
