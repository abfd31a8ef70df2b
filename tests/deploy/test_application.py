"""The app that is submitted, and consortia of other sizes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from deploy.application import FLOWER_TABLE, PACKAGES, application_directory, assemble
from deploy.scaling import with_sites
from reconsent.config import ConsortiumConfig, dump_consortium, load_consortium, parse_consortium
from reconsent.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_assembled_app_is_described_like_the_checkout() -> None:
    """The table for Flower is the one of pyproject.toml, key by key."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["flwr"]["app"] == FLOWER_TABLE
    assert any(text == "flwr[simulation]>=1.39,<1.40" for text in project["project"]["dependencies"])


def test_a_checkout_is_submitted_as_it_is(tmp_path: Path) -> None:
    """Nothing is copied then."""
    assert application_directory(tmp_path) == ROOT
    assert list(tmp_path.iterdir()) == []


def test_assembled_app_becomes_the_same_bundle(tmp_path: Path) -> None:
    """Flower accepts what is put together from the packages, and its bundle has the same sources."""
    app = assemble(tmp_path / "reconsent")
    (app / "stale.py").write_text("")
    app = assemble(tmp_path / "reconsent")
    assert not (app / "stale.py").exists()
    build = [str(Path(sys.executable).parent / "flwr"), "build", "--app", str(app)]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (bundle,) = tmp_path.glob("*.fab")
    names = set(zipfile.ZipFile(bundle).namelist())
    sources = {str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    presets = {f"reconsent/presets/{path.name}" for path in (ROOT / "reconsent/presets").glob("*.toml")}
    assert names == sources | presets | {"LICENSE", "README.md", "pyproject.toml", ".info/CONTENT"}


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_consortium_of_another_size(count: int) -> None:
    """Any number of sites makes a valid consortium whose names differ and whose withdrawals fit."""
    config = with_sites(load_consortium("tiny"), count)
    again = parse_consortium(
        tomllib.loads(dump_consortium(config)), where="the scaled consortium", base=Path()
    )
    assert again == config
    assert len({site.name for site in config.sites}) == count
    assert bool(config.withdrawals) is (count > 2), "tiny's third site is the one that leaves"


def test_sites_with_data_are_not_repeated() -> None:
    """One hospital's data must not become two hospitals."""
    tiny = load_consortium("tiny")
    own = tiny.sites[0].model_copy(update={"data": Path("/data")})
    config: ConsortiumConfig = tiny.model_copy(update={"sites": (own, *tiny.sites[1:])})
    assert len(with_sites(config, 2).sites) == 2
    with pytest.raises(ConfigError, match="cannot be repeated"):
        with_sites(config, 4)
    with pytest.raises(ConfigError, match="two sites or more"):
        with_sites(config, 1)
