"""A private PostgreSQL server for tests: a cluster in a temporary directory, on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError


def binaries() -> Path | None:
    """Where PostgreSQL's programs are: Debian keeps them beside its versions, others on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: path.parts[4].zfill(4))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@contextmanager
def running_cluster() -> Iterator[str]:
    """Start a server, and stop it; gives the URL of an empty database. Skips where there is no PostgreSQL."""
    where = binaries()
    if where is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="the driver is missing: pip install 'psycopg[binary]'")
    user: dict[str, object] = {}
    owner = pwd.getpwuid(os.getuid())
    if os.getuid() == 0:
        # The server refuses to run as root.
        with suppress(KeyError):
            owner = pwd.getpwnam("nobody")
            owner = pwd.getpwnam("postgres")
        user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    directory = Path(tempfile.mkdtemp(prefix="reconsent-pg-"))
    try:
        os.chown(directory, owner.pw_uid, owner.pw_gid)
        data = directory / "data"
        # The database is thrown away, so nothing of it need survive a power cut.
        subprocess.run(
            [
                where / "initdb",
                "-D",
                data,
                "-U",
                "reconsent",
                "-A",
                "trust",
                "-N",
                "--locale=C",
                "-E",
                "UTF8",
            ],
            check=True,
            capture_output=True,
            cwd=directory,
            env={**os.environ, "LC_ALL": "C"},
            **user,  # type: ignore[call-overload]
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(
                [where / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"],
                stdout=log,
                stderr=log,
                cwd=directory,
                **user,  # type: ignore[call-overload]
            )
        try:
            url = f"postgresql+psycopg://reconsent@127.0.0.1:{port}/postgres"
            _wait_for(url, server, directory / "log")
            yield url
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def emptied(url: str) -> str:
    """Drop everything in the database; returns ``url``."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    engine = create_engine(url)
    deadline = time.monotonic() + 60
    while True:
        try:
            engine.connect().close()
        except OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL does not start: {log.read_text()}")
            time.sleep(0.1)
        else:
            engine.dispose()
            return
