"""The image's recipe is clean, has in it what the package needs, and starts programs that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.deployment_files import DEPLOY, ROOT, parse_command

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
HADOLINT = Path(sys.executable).parent / "hadolint"


def instructions() -> list[tuple[str, str]]:
    """Every instruction with its arguments, continued lines joined, comments left out."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def copied() -> list[str]:
    """What is copied from the sources."""
    found = [arguments.split()[:-1] for name, arguments in instructions() if name == "COPY"]
    return [source for sources in found for source in sources if not sources[0].startswith("--from")]


def wheel_names(root: Path, out: Path) -> set[str]:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.skipif(not HADOLINT.is_file(), reason="hadolint has no build for this platform")
def test_hadolint_finds_nothing() -> None:
    """The linter of Dockerfiles has no complaint."""
    done = subprocess.run([str(HADOLINT), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_makes_the_whole_package(tmp_path: Path) -> None:
    """The wheel made of what the image copies holds every module, preset, template and migration."""
    context = tmp_path / "context"
    context.mkdir()
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, context)
    names = wheel_names(context, tmp_path / "wheel")
    packages = [name for name in copied() if (ROOT / name).is_dir()]
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            assert str(path.relative_to(ROOT)) in names
    assert "cli/report/report.html.j2" in names
    assert "reconsent/presets/tiny.toml" in names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


def test_the_context_is_what_is_copied() -> None:
    """`.dockerignore` lets through exactly what the recipe copies."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == {
        Path(source).parts[0] for source in copied()
    }


def test_the_image_does_not_run_as_root() -> None:
    """The last user is given by a number other than 0, and owns the state directory."""
    users = [arguments for name, arguments in instructions() if name == "USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", users[-1])
    owner = users[-1].partition(":")[0]
    assert f"--owner={owner}" in DOCKERFILE.read_text(encoding="utf-8")


def test_the_command_is_one_of_the_program() -> None:
    """The entry point is installed with the package, and knows the default command."""
    found = {name: arguments for name, arguments in instructions() if name in ("ENTRYPOINT", "CMD")}
    assert json.loads(found["ENTRYPOINT"]) == ["reconsent"]
    assert (Path(sys.executable).parent / "reconsent").is_file()
    parse_command(json.loads(found["CMD"]))


def test_nothing_is_reported_or_installed_at_run_time() -> None:
    """Telemetry, update checks and run-time installation are off, and each process has one thread."""
    (environment,) = [
        arguments for name, arguments in instructions() if name == "ENV" and "OMP_NUM_THREADS" in arguments
    ]
    settings = dict(word.split("=", 1) for word in environment.split())
    assert settings["OMP_NUM_THREADS"] == "1"
    assert settings["FLWR_TELEMETRY_ENABLED"] == "0"
    assert settings["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert settings["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"


def test_base_images_have_a_version_and_no_host() -> None:
    """Both stages use one base, with a version; where it comes from is the operator's choice."""
    (base,) = [a.partition("=")[2] for n, a in instructions() if n == "ARG" and a.startswith("PYTHON_IMAGE")]
    assert re.fullmatch(r"python:3\.\d+[\w.-]*", base)
    stages = [arguments.split()[0] for name, arguments in instructions() if name == "FROM"]
    assert stages == ["${PYTHON_IMAGE}", "${PYTHON_IMAGE}"]


def test_every_dependency_is_pinned_to_a_version_that_is_allowed() -> None:
    """Whatever the package asks for has one exact version in the image, within the package's own range."""
    pins = {}
    for line in (DEPLOY / "docker" / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[canonicalize_name(name)] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *project["optional-dependencies"]["postgres"]]
    wanted = [Requirement(text) for text in texts]
    assert len(wanted) > 10
    for requirement in wanted:
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"
