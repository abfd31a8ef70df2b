"""``reconsent data``: what it prints, and how it ends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from cli.data import app
from mri.directory import list_volumes
from mri.fastmri_file import read_header
from reconsent.errors import ConfigError, DataError

SYNTH = ["--patients", "2", "--slices", "1", "--matrix", "32x40", "--coils", "2"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    y, x = np.mgrid[-1:1:40j, -1:1:40j]
    disc = (y**2 + x**2 < 0.5).astype(np.float32)
    ramp = disc * (2 + y)
    np.savez(tmp_path / "scans.npz", image=np.stack([disc, ramp]), patient_id=np.array(["[ann]", "ben"]))
    return tmp_path / "scans.npz"


def test_synth_then_check(tmp_path: Path) -> None:
    """Phantoms as asked for are made, and pass the check."""
    made = run("synth", tmp_path / "knees", "--organ", "knee", *SYNTH)
    assert made.exit_code == 0, made.output
    assert "2 phantoms (knee)" in made.output
    header = read_header(list_volumes(tmp_path / "knees")[0])
    assert (header.organ, header.coils, header.rows, header.columns) == ("knee", 2, 32, 40)
    checked = run("check", tmp_path / "knees")
    assert checked.exit_code == 0
    assert "can be trained on" in " ".join(checked.output.split())
    assert "32x40 (2)" in checked.output
    fewer = run("synth", tmp_path / "knees", "--organ", "knee", *SYNTH, "--patients", "1")
    assert "1 of other options were removed" in " ".join(fewer.output.split())


def test_check_as_json(tmp_path: Path) -> None:
    """With --json the output is one JSON document, and the status says whether it can be trained on."""
    run("synth", tmp_path / "d", *SYNTH, "--quiet")
    good = run("check", tmp_path / "d", "--json")
    assert good.exit_code == 0
    assert json.loads(good.stdout)["patients"] == {"brain-000": 1, "brain-001": 1}
    (tmp_path / "d" / "bad.h5").touch()
    bad = run("check", tmp_path / "d", "--json")
    assert bad.exit_code == 1
    table = json.loads(bad.stdout)
    assert not table["trainable"]
    assert table["problems"][0]["name"] == "bad.h5"


def test_check_lists_every_problem(tmp_path: Path) -> None:
    """Each bad file is listed with its reason and remedy; with --quiet they are in the error."""
    run("synth", tmp_path / "d", *SYNTH)
    (tmp_path / "d" / "a.h5").touch()
    (tmp_path / "d" / "b.h5").write_text("x")
    shown = run("check", tmp_path / "d")
    assert shown.exit_code == 1
    # Long paths are broken to fit the terminal.
    assert "a.h5isempty" in "".join(shown.output.split())
    assert "cannotbetrainedon" in "".join(shown.output.split())
    quiet = run("check", tmp_path / "d", "--quiet")
    assert isinstance(quiet.exception, DataError)
    assert "a.h5" in quiet.exception.problem
    assert "b.h5" in quiet.exception.problem
    assert quiet.stdout == ""


def test_import_tells_where_the_key_is(scans: Path, tmp_path: Path) -> None:
    """The report names volumes, fields left behind, and the key; brackets in names are no markup."""
    key = tmp_path / "k" / "key"
    done = run("import", scans, tmp_path / "out", "--organ", "heart", "--matrix", "32x32", "--key-file", key)
    assert done.exit_code == 0, done.output
    assert "retrospective" in done.output
    assert "patient_id" in done.output
    assert "/k/key" in re.sub(r"\s+", "", done.output)
    assert "ann" not in done.output
    kept = run("import", scans, tmp_path / "named", "--organ", "heart", "--keep-identifiers", "--json")
    assert json.loads(kept.stdout)["patients"] == ["ann", "ben"]


def test_default_key_is_in_the_users_configuration(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --key-file the key goes to the user's configuration directory."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert run("import", scans, tmp_path / "out", "--organ", "heart", "-q").exit_code == 0
    assert (tmp_path / "config" / "reconsent" / "pseudonym.key").is_file()


def test_partly_refused_import_fails(scans: Path, tmp_path: Path) -> None:
    """What can be imported is; what cannot is named, and the command does not end well."""
    np.save(tmp_path / "dir.npy", np.zeros(3))
    source = tmp_path / "source"
    source.mkdir()
    scans.rename(source / "scans.npz")
    (tmp_path / "dir.npy").rename(source / "vector.npy")
    key = tmp_path / "k" / "key"
    done = run("import", source, tmp_path / "out", "--organ", "heart", "--key-file", key)
    assert isinstance(done.exception, DataError)
    assert "vector.npy" in done.exception.problem
    assert len(list_volumes(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("synth", "d", "--matrix", "64"),
        ("synth", "d", "--matrix", "8x8"),
        ("import", "s", "d", "--organ", "heart", "--matrix", "ax9"),
        ("import", "s", "d", "--organ", "heart", "--slices", "4"),
        ("import", "s", "d", "--organ", "heart", "--acquisition", "T2"),
    ],
)
def test_wrong_options_are_config_errors(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option that cannot be understood is a ConfigError with what is accepted."""
    monkeypatch.chdir(tmp_path)
    failed = run(*arguments)
    assert isinstance(failed.exception, ConfigError)
    assert failed.exception.remedy
