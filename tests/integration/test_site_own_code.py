"""A hospital's node on a real SuperLink, with TLS and keys: what the server sends is not what is run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from client.node.keys import make_key_pair
from deploy.certificates import make_certificates
from deploy.health import status as health_of
from reconsent.config import load_consortium

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
TINY = ROOT / "reconsent" / "presets" / "tiny.toml"

PROJECT = """
[project]
name = "curious"
version = "1.0.0"
dependencies = ["flwr>=1.39,<1.40"]
[tool.flwr.app]
publisher = "somebody"
[tool.flwr.app.components]
serverapp = "asking:app"
clientapp = "stealing:app"
"""
SERVER = """
import json, time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()

def ask(grid, kind):
    (node,) = list(grid.get_node_ids())
    content = RecordDict({"config": ConfigRecord({"server-round": 1})})
    message = Message(content, dst_node_id=node, message_type=kind, ttl=100)
    (reply,) = grid.send_and_receive([message], timeout=100)
    return reply.error.reason if reply.has_error() else dict(reply.content["config"])

@app.main()
def main(grid, context):
    for _ in range(300):
        if list(grid.get_node_ids()):
            break
        time.sleep(0.2)
    print("ANSWERS " + json.dumps([ask(grid, "query.identify"), ask(grid, "train")]), flush=True)
"""
CLIENT = """
from pathlib import Path
from flwr.clientapp import ClientApp
Path("{trace}").write_text("the code of the server was run")
app = ClientApp()
"""


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextmanager
def running(
    command: list[str], directory: Path, name: str, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a session of its own, which is stopped as a whole."""
    with (directory / f"{name}.log").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def check_node(process: subprocess.Popen[bytes], health: int, directory: Path) -> None:
    """The process that was started has become Flower's: it serves its health, and ends when it is told to."""
    assert health_of(f"127.0.0.1:{health}", timeout=10.0) == "serving", (directory / "node.log").read_text()
    if Path("/proc/self/cmdline").exists():
        assert b"flower-supernode" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        its_own = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"FLWR_TELEMETRY_ENABLED=0" in its_own
        assert f"RECONSENT_SITE_POLICY={directory / 'policy.toml'}".encode() in its_own
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, (directory / "node.log").read_text()


def test_received_code_is_not_run(tmp_path: Path) -> None:
    """`site run` becomes Flower's node; a server's own client code leaves no trace, the installed app answers
    under the site's policy.
    """  # noqa: D205 - one sentence
    control, fleet, runtime, health = free_ports(4)
    make_certificates(tmp_path / "tls")
    for name in ("flower-server", "app"):
        (tmp_path / name).mkdir()
    trace = tmp_path / "trace"
    (tmp_path / "app" / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "app" / "asking.py").write_text(SERVER)
    (tmp_path / "app" / "stealing.py").write_text(CLIENT.format(trace=trace))
    (tmp_path / "flower-server" / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{control}"\n'
        f'root-certificates = "{tmp_path / "tls" / "ca.crt"}"\n'
    )
    make_key_pair(tmp_path / "node.key")
    site = load_consortium(TINY).sites[0]
    (tmp_path / "policy.toml").write_text("may-train = false")
    (tmp_path / "site.toml").write_text(
        f'name = "{site.name}"\nsuperlink = "127.0.0.1:{fleet}"\nca = "tls/ca.crt"\nkey = "node.key"\n'
        f'consortium = "consortium.toml"\npolicy = "policy.toml"\nlog = "site.jsonl"\n'
        f'runtime-port = {runtime}\nhealth-port = {health}\nflower-home = "flower-site"\n'
    )
    shutil.copy(TINY, tmp_path / "consortium.toml")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RECONSENT_", "FLWR_"))}
    environment = {
        **kept,
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FLWR_HOME": str(tmp_path / "flower-server"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
    }
    tls = tmp_path / "tls"
    superlink = [
        *("flower-superlink", "--ssl-ca-certfile", str(tls / "ca.crt")),
        *("--ssl-certfile", str(tls / "server.pem"), "--ssl-keyfile", str(tls / "server.key")),
        *("--enable-supernode-auth", "--host", "127.0.0.1", "--port", str(control)),
        *("--fleet-api-address", f"127.0.0.1:{fleet}"),
    ]
    program = "import sys; from cli.main import main; main(sys.argv[1:])"
    node = [sys.executable, "-c", program, "site", "run", str(tmp_path / "site.toml")]

    def flower(*arguments: str) -> str:
        done = subprocess.run(
            ["flwr", *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    with running(superlink, tmp_path, "superlink", environment):
        deadline = time.monotonic() + 60
        register = ("supernode", "register", str(tmp_path / "node.key.pub"), "here")
        while "registered" not in (printed := flower(*register)).lower():
            assert time.monotonic() < deadline, printed
            time.sleep(0.5)
        with running(node, tmp_path, "node", environment) as process:
            printed = flower("run", str(tmp_path / "app"), "here", "--stream")
            check_node(process, health, tmp_path)
    logs = "\n".join((tmp_path / f"{name}.log").read_text() for name in ("superlink", "node"))
    found = [line.partition("ANSWERS ")[2] for line in printed.splitlines() if "ANSWERS [" in line]
    assert found, printed + logs
    identity, refusal = json.loads(found[0])
    assert identity["site"] == site.name
    assert identity["organ"] == site.organ
    assert identity["num-examples"] > 0
    assert refusal == "refused-by-site: not-allowed: This site does not train."
    assert not trace.exists()
    assert not list((tmp_path / "flower-site").rglob("stealing.py")), "it was not even unpacked"
    events = [json.loads(line)["event"] for line in (tmp_path / "site.jsonl").read_text().splitlines()]
    assert events == ["received", "worked", "refused"]
