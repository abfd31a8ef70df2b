"""``reconsent console``: its users, and where it listens."""

from __future__ import annotations

import io
import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cli.main import main
from deploy.certificates import make_certificates
from deploy.probe import main as probe
from tests.cli.console.console_at_work import PASSWORD, entries


def typed(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """Run a command; returns what it printed."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == status, out + err
    return str(out + err)


def test_users_come_and_go(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Added with a password from standard input, changed, removed; each in the ledger, by number."""
    where = ("--state", str(place / "state"))

    def told(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    told(f"{PASSWORD}\n")
    assert "officer, U-" in typed(capsys, "console", "user", "add", "ada", "--role", "officer", *where)
    told(f"{PASSWORD}\n")
    again = typed(capsys, "console", "user", "add", "ada", "--role", "viewer", *where, status=1)
    assert "is a user 'ada' already" in again
    told("short\n")
    short = typed(capsys, "console", "user", "password", "ada", *where, status=1)
    assert "5 characters" in short
    told("a longer password\n")
    typed(capsys, "console", "user", "password", "ada", *where)
    typed(capsys, "console", "user", "role", "ada", "viewer", *where)
    listed = json.loads(typed(capsys, "console", "user", "list", "--json", *where))
    assert ("ada", "viewer") in [(u["name"], u["role"]) for u in listed]
    assert "password" not in str(listed)
    typed(capsys, "console", "user", "remove", "ada", *where)
    assert "no user 'ada'" in typed(capsys, "console", "user", "remove", "ada", *where, status=1)
    for name in ("Ada", "a b", "../x", "x" * 64, ""):
        told(f"{PASSWORD}\n")
        typed(capsys, "console", "user", "add", name, "--role", "viewer", *where, status=1)
    changes = [e["change"] for e in entries(place / "state", "console-user")]
    assert changes == ["added"] * 4 + ["password", "role", "removed"]
    assert "ada" not in str(entries(place / "state", "console-user"))


def test_it_listens_here_only_unless_it_has_tls(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another address without a certificate, half a pair, a file that is none: refused before it listens."""
    where = ("--state", str(place / "state"))
    for address in ("0.0.0.0:0", "192.0.2.1:9480", "[::]:9480", "hospital.example:9480"):
        told = typed(capsys, "console", "--address", address, *where, status=1)
        assert "without TLS" in told
    half = typed(capsys, "console", "--certificate", "c.pem", *where, status=1)
    assert "needs a certificate and its key" in half
    wrong = ("--certificate", str(place / "state" / "state.sqlite"), "--key", str(place / "none"))
    assert "cannot be used" in typed(capsys, "console", *wrong, *where, status=1)
    assert "no state directory" in typed(capsys, "console", "--state", str(place / "none"), status=1)


def test_a_real_process_serves_tls_and_stops_when_told(place: Path) -> None:
    """With the certificate of a consortium it answers over TLS only, by the names in it, and ends cleanly."""
    tls = place / "tls"
    make_certificates(tls, ["127.0.0.1"])
    program = [str(Path(sys.executable).parent / "python"), "-c", "from cli.main import main; main()"]
    options = ["--certificate", str(tls / "server.pem"), "--key", str(tls / "server.key")]
    command = [*program, "console", "--address", "127.0.0.1:0", "--state", str(place / "state"), *options]
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = line.split()[-1]
            assert url.startswith("https://127.0.0.1:")
            context = ssl.create_default_context(cafile=str(tls / "ca.crt"))
            answer = httpx.get(f"{url}login", verify=context, trust_env=False, timeout=60)
            assert answer.status_code == 200
            assert "strict-transport-security" in answer.headers
            assert probe([f"{url}login"]) == 0
            with pytest.raises(httpx.HTTPError):
                httpx.get(url.replace("https", "http"), trust_env=False, timeout=10)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM)
