"""A consortium of an installed Reconsent: no checkout, nothing editable, only what is in the wheel.

It is also the one that runs without TLS, which must be asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import processes
from deploy.layout import Layout
from deploy.local_consortium import LocalConsortium
from reconsent.config import dump_consortium, load_consortium

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with Reconsent's wheel; everything else is that of the tests."""
    directory = tmp_path_factory.mktemp("installed")
    sources = directory / "sources"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, sources / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(sources)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = directory.glob("reconsent-*.whl")
    environment = directory / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    programs = environment / "bin"
    install = [*pip, "--python", str(programs / "python"), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    # A directory that is added so does not bring what is installed there as editable: Reconsent itself.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for program in (*Path(sys.executable).parent.glob("flwr*"), *Path(sys.executable).parent.glob("flower*")):
        _, _, body = program.read_text().partition("\n")
        (programs / program.name).write_text(f"#!{programs / 'python'}\n{body}")
        (programs / program.name).chmod(0o755)
    return programs


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """Where the consortium is; it is stopped whatever happens."""
    local = LocalConsortium(tmp_path / "state")
    try:
        yield local.layout.state
    finally:
        local.down()
        assert processes.strays(str(local.layout.root)) == []


def test_a_run_of_an_installed_reconsent(installed: Path, state: Path, tmp_path: Path) -> None:
    """`up`, `train` and an export work from a wheel; the app is put together from the installed packages; and
    without TLS, certificates and keys.
    """  # noqa: D205 - one sentence
    tiny = load_consortium("tiny")
    training = tiny.training.model_copy(
        update={"rounds": 1, "local_steps": 1, "evaluate_every": 0, "join_seconds": 300.0}
    )
    config = tiny.model_copy(update={"sites": tiny.sites[:2], "withdrawals": (), "training": training})
    file = tmp_path / "consortium.toml"
    file.write_text(dump_consortium(config))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RECONSENT_", "PYTHON", "VIRTUAL_ENV"))}

    def typed(*arguments: str) -> str:
        command = [str(installed / "reconsent"), *arguments, "--state", str(state)]
        done = subprocess.run(
            command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    where = subprocess.run(
        [str(installed / "python"), "-c", "import server; print(server.__file__)"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(installed.parent)
    typed("up", str(file), "--insecure", "--no-metrics")
    layout = Layout(state)
    assert not list(layout.tls.iterdir()) and not list(layout.keys.iterdir()), "none without being asked"
    typed("train", "--rounds", "1")
    status = json.loads(typed("status", "--json"))
    assert (status["round"], status["run"]["status"]) == (1, "completed")
    assert status["model"]["sites"] == ["abdomen", "brain"]
    assert (layout.app / "reconsent" / "pyproject.toml").is_file()
    typed("model", "export", "latest", "--out", str(tmp_path / "model.pt"), "--format", "torchscript")
    assert (tmp_path / "model.pt").is_file()
