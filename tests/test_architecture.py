"""What holds for the tree as a whole: import arrows, what is shipped, documented and declared."""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
NOT_SHIPPED = {"tests", "bench"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Top-level names of every absolute import in a file, also of those within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def third_party(*folders: str) -> set[str]:
    """Distributions that provide what the files of ``folders`` import."""
    providers = packages_distributions()
    modules = {module for path in sources(*folders) for module in imported_modules(path)}
    modules -= set(sys.stdlib_module_names) | set(PACKAGES) | NOT_SHIPPED
    unknown = {module for module in modules if module not in providers}
    assert not unknown, f"nothing that is installed provides {unknown}"
    return {canonicalize_name(providers[module][0]) for module in modules}


def declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a checkout holds, without what lies about in a working tree."""
    copy = tmp_path_factory.mktemp("checkout") / "reconsent-app"
    copy.mkdir()
    for name in (*PACKAGES, *NOT_SHIPPED, "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md", ".gitignore", "Makefile"):
        shutil.copy(ROOT / name, copy)
    return copy


# ---- arrows ---------------------------------------------------------------------------------------------


def test_certificates_name_the_code_of_every_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash of the code that ran covers all packages: it is another without any of them."""
    from server import accountability

    assert set(accountability.CODE) == set(PACKAGES)
    whole = accountability.code_digest()
    assert whole == accountability.code_digest()
    for package in PACKAGES:
        monkeypatch.setattr(accountability, "CODE", tuple(p for p in PACKAGES if p != package))
        assert accountability.code_digest() != whole, package


def test_import_arrows_point_one_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every contract of [tool.importlinter] holds."""
    if str(ROOT) not in sys.path:
        monkeypatch.syspath_prepend(ROOT)
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out


def test_contracts_and_wheel_name_every_package() -> None:
    """A new top-level package cannot escape the wheel, the contracts or the type checker."""
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - NOT_SHIPPED
    assert found == set(PACKAGES)
    assert found == set(PROJECT["tool"]["importlinter"]["root_packages"])
    assert found == set(PROJECT["tool"]["mypy"]["packages"])


def test_only_the_declared_packages_use_the_imaging_domain() -> None:
    """``mri`` is imported by client, cli, bench and tests, by nobody else."""
    users = {
        path.relative_to(ROOT).parts[0] for path in sources(*PACKAGES) if "mri" in imported_modules(path)
    }
    assert users <= {"mri", "client", "cli"}


# ---- dependencies ---------------------------------------------------------------------------------------


def test_run_time_dependencies_are_exactly_what_is_imported() -> None:
    """Nothing is imported that a plain install lacks, and nothing is installed that nobody imports."""
    dashboards = declared(PROJECT["project"]["optional-dependencies"]["dashboards"])
    assert third_party(*PACKAGES) - third_party("deploy/grafana") == declared(
        PROJECT["project"]["dependencies"]
    )
    assert third_party("deploy/grafana") == dashboards


def test_development_dependencies_cover_the_tests() -> None:
    """The tests and benchmarks import nothing beyond the run-time and development dependencies."""
    extras = PROJECT["project"]["optional-dependencies"]
    allowed = declared([*PROJECT["project"]["dependencies"], *extras["dev"]])
    assert third_party("tests", "bench") <= allowed


def test_every_dependency_is_bounded_and_explained() -> None:
    """Each requirement has a lower and an upper bound, and a row in docs/dependencies.md."""
    extras = PROJECT["project"]["optional-dependencies"]
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    for text in [
        *PROJECT["project"]["dependencies"],
        *extras["dev"],
        *extras["postgres"],
        *extras["dashboards"],
    ]:
        requirement = Requirement(text)
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">=", "<"}, text
        assert f"| {requirement.name} |" in page, requirement.name


# ---- what is shipped ------------------------------------------------------------------------------------


def test_flower_bundle_holds_what_a_site_runs_and_no_tests(app: Path) -> None:
    """`flwr build` accepts the app; the bundle has presets and migrations, and neither tests nor cli."""
    build = [str(Path(sys.executable).parent / "flwr"), "build", "--app", str(app)]
    done = subprocess.run(build, cwd=app.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (bundle,) = app.parent.glob("*.fab")
    names = set(zipfile.ZipFile(io.BytesIO(bundle.read_bytes())).namelist())
    presets = {f"reconsent/presets/{path.name}" for path in (ROOT / "reconsent" / "presets").glob("*.toml")}
    migrations = {str(path.relative_to(ROOT)) for path in sources("server/persistence/migrations")}
    assert len(migrations) >= 2
    assert names >= {"server/app.py", "client/app.py", "LICENSE", *presets, *migrations}
    assert not {name for name in names if name.startswith(("tests/", "bench/", "cli/", "deploy/", "docs/"))}
    shipped = {str(p.relative_to(ROOT)) for p in sources(*(set(PACKAGES) - {"cli", "deploy"}))}
    assert shipped <= names


def test_run_configuration_declares_the_keys_the_apps_read() -> None:
    """[tool.flwr.app.config] has exactly the keys that server and client look up: Flower refuses others."""
    read = set()
    for path in sources("server", "client", "reconsent"):
        read |= set(
            re.findall(r"""run_config(?:\.get\(|\[)["']([\w.-]+)["']""", path.read_text(encoding="utf-8"))
        )
    assert read == set(PROJECT["tool"]["flwr"]["app"]["config"])


def test_wheel_ships_every_file_of_the_packages(app: Path, tmp_path: Path) -> None:
    """Templates, type markers and presets are in the wheel beside the modules, and nothing else is."""
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(app)).build(directory=str(tmp_path), versions=["standard"])
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(app))
        for package in PACKAGES
        for path in (app / package).rglob("*")
        if path.is_file()
    }
    assert names == expected
    assert names >= {"cli/report/report.html.j2", "reconsent/presets/demo.toml"}
    assert names >= {f"{package}/py.typed" for package in PACKAGES}


# ---- what is documented ---------------------------------------------------------------------------------


def test_the_server_and_its_commands_do_without_pytorch() -> None:
    """What the ServerApp, the exporter, the console and the commands import does not bring PyTorch along."""
    modules = ("server.app", "server.status", "server.metrics.collector", "cli.filing", "cli.console.serving")
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_environment_variable_is_documented() -> None:
    """docs/configuration.md names each RECONSENT_… that the code reads."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in sources(*PACKAGES))
    missing = {name for name in set(re.findall(r"\bRECONSENT_[A-Z_]+\b", code)) if f"`{name}`" not in page}
    assert not missing


def test_links_between_the_pages_lead_somewhere() -> None:
    """Every relative link and picture of README and docs is there."""
    broken = [
        f"{page.name}: {target}"
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")]
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_every_test_says_what_it_claims() -> None:
    """Each test function has a docstring."""
    silent = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in sources("tests")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert not silent
