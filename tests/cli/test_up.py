"""``reconsent up``, ``down`` and ``certs``: what they print, and how they end."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from cli.main import main
from deploy.certificates import make_certificates
from deploy.layout import Layout


def run(*arguments: str) -> int:
    """The exit status."""
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_down_where_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so, ends well, and makes no directory."""
    assert run("down", "--state", str(tmp_path / "none")) == 0
    assert "Nothing runs" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_unknown_consortium_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is no preset is refused before anything is made."""
    assert run("up", "tinny", "--state", str(tmp_path / "state")) == 1
    assert "neither a preset nor a .toml file" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_expired_certificate_stops_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`up` ends with status 1, the date, and the command that helps; nothing was started."""
    tls = Layout(tmp_path).tls
    make_certificates(tls, days=1, now=dt.datetime.now(dt.UTC) - dt.timedelta(days=2))
    assert run("up", "--state", str(tmp_path)) == 1
    printed = capsys.readouterr().err
    assert "expired on" in printed and "reconsent certs renew" in printed
    assert not Layout(tmp_path).processes.exists()


def test_certs_from_making_to_expiry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """make, check, a warning when few days are left, status 1 after expiry, and renew mends it."""
    where = ("--dir", str(tmp_path))
    assert run("certs", "make", *where, "--host", "superlink.clinic.example", "--days", "10") == 0
    capsys.readouterr()
    assert run("certs", "check", *where, "--json") == 0
    printed = capsys.readouterr()
    (_, server) = json.loads(printed.out)
    assert server["days_left"] == 9 and "superlink.clinic.example" in server["hosts"]
    assert "expires in 9 days" in " ".join(printed.err.split())

    (tmp_path / "server.pem").unlink()
    make_certificates(tmp_path, days=1, now=dt.datetime.now(dt.UTC) - dt.timedelta(days=2))
    assert run("certs", "check", *where) == 1
    assert "expired on" in capsys.readouterr().err
    assert run("certs", "renew", *where, "--days", "90") == 0
    assert run("certs", "check", *where) == 0
    assert "expire" not in capsys.readouterr().err


def test_state_and_directory_name_the_same_place(tmp_path: Path) -> None:
    """--state means the directory that `up` uses."""
    assert run("certs", "make", "--state", str(tmp_path)) == 0
    assert (tmp_path / "deployment" / "tls" / "server.pem").is_file()
