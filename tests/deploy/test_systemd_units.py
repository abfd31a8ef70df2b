"""The systemd units are understood by systemd, start commands that exist, and are confined."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.deployment_files import DEPLOY, parse_command

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def values(unit: Path, key: str) -> list[str]:
    lines = unit.read_text(encoding="utf-8").splitlines()
    return [line.partition("=")[2] for line in lines if line.partition("=")[0] == key]


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def unit(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def machine(unit: Path, tmp_path: Path) -> Path:
    """The root of a file system in which the unit and its program are installed."""
    units = tmp_path / "etc" / "systemd" / "system"
    targets = Path("/usr/lib/systemd/system")
    if not targets.is_dir():
        targets = Path("/lib/systemd/system")
    units.mkdir(parents=True)
    shutil.copy(unit, units)
    for target in targets.glob("*.target"):
        if target.is_file():
            shutil.copy(target, units)
    program = tmp_path / values(unit, "ExecStart")[0].split()[0].lstrip("/")
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
def test_systemd_understands_every_line(unit: Path, machine: Path) -> None:
    """`systemd-analyze verify` has nothing to say about the unit."""
    done = analyze("verify", "--man=no", f"--root={machine}", unit.name)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_a_misspelt_line_is_found(unit: Path, machine: Path) -> None:
    """The check above can fail."""
    copy = machine / "etc" / "systemd" / "system" / unit.name
    copy.write_text(copy.read_text(encoding="utf-8").replace("ProtectHome=", "ProtectHme="), encoding="utf-8")
    done = analyze("verify", "--man=no", f"--root={machine}", unit.name)
    assert "ProtectHme" in done.stdout + done.stderr


@needs_systemd
def test_systemd_finds_little_to_attack(unit: Path, machine: Path) -> None:
    """The exposure that systemd itself computes stays under 2 of 10."""
    done = analyze("security", "--offline=yes", "--threshold=20", f"--root={machine}", unit.name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_commands_are_those_of_the_program(unit: Path) -> None:
    """The program has the command and its options."""
    (line,) = values(unit, "ExecStart")
    program, *words = shlex.split(line)
    assert program == "/opt/reconsent/bin/reconsent"
    parse_command(words)


def test_units_run_as_a_user_of_their_own(unit: Path) -> None:
    """The user in the unit is the one that sysusers makes, and it is not root."""
    (user,) = values(unit, "User")
    made = (DEPLOY / "systemd" / "reconsent.sysusers.conf").read_text(encoding="utf-8").splitlines()
    assert f"u {user} " in "\n".join(line for line in made if not line.startswith("#"))


@needs_systemd
def test_the_daily_purge_is_a_timer_of_its_service(tmp_path: Path) -> None:
    """systemd understands the timer, which starts the service of its name daily; a wrong line is found."""
    timer = DEPLOY / "systemd" / "reconsent-purge.timer"
    (when,) = values(timer, "OnCalendar")
    done = analyze("calendar", "--iterations=2", "--base-time=2027-01-01 12:00:00", when)
    assert "2027-01-02 00:00:00" in done.stdout
    assert "2027-01-03 00:00:00" in done.stdout
    assert timer.with_suffix(".service").is_file()
    units = tmp_path / "units"
    units.mkdir()
    service = timer.with_suffix(".service").read_text(encoding="utf-8")
    # The program is not installed here; that it has the command is tested with the others.
    (units / "reconsent-purge.service").write_text(
        service.replace("/opt/reconsent/bin/reconsent", "/bin/true")
    )
    for text, sound in (
        (timer.read_text(), True),
        (timer.read_text().replace("Persistent", "Presistent"), False),
    ):
        (units / timer.name).write_text(text, encoding="utf-8")
        done = analyze("verify", "--man=no", str(units / timer.name))
        assert ((done.returncode, done.stdout + done.stderr) == (0, "")) == sound, done.stderr


def test_nodes_write_only_where_they_may() -> None:
    """Log and Flower's directory of the example lie in the one directory the unit may write to."""
    unit = DEPLOY / "systemd" / "reconsent-site.service"
    (directory,) = values(unit, "StateDirectory")
    example = (DEPLOY / "systemd" / "site.toml").read_text(encoding="utf-8")
    for key in ("log", "flower-home"):
        assert f'{key} = "/var/lib/{directory}/' in example
