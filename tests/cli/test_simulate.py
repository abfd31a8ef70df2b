"""The command line: options over the file's, errors in words, and pages that read like a manual."""

from __future__ import annotations

import os
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from cli.consortium_data import prepare_data
from cli.main import main
from cli.run_directory import RunDirectory
from cli.simulate import override, pseudonyms_in
from client.site import site_split
from mri.fastmri_file import write_volume
from mri.phantoms import synthesise_volume
from mri.site_data import synthesise_directory
from reconsent import __version__
from reconsent.config import (
    ConsortiumConfig,
    PhantomConfig,
    dump_consortium,
    load_consortium,
    parse_consortium,
)
from reconsent.errors import ConfigError, DataError

NOTHING: dict[str, None] = dict.fromkeys(
    (
        *("withdraw", "at_round", "cooperating", "patients", "method", "setting", "oracle"),
        *("rounds", "continue_rounds", "seed"),
    )
)


def test_what_a_simulation_says_in_the_environment_is_undone(tmp_path: Path) -> None:
    """Nothing started afterwards takes the simulation's directories for its own, also after a failure."""
    before = dict(os.environ)
    with pytest.raises(RuntimeError), RunDirectory(tmp_path).environment():
        assert os.environ["RECONSENT_STATE"] == str(tmp_path / "state")
        raise RuntimeError
    assert dict(os.environ) == before


def overridden(config: ConsortiumConfig | None = None, **options: object) -> ConsortiumConfig:
    """The preset ``tiny`` with these options."""
    return override(config or load_consortium("tiny"), **{**NOTHING, **options})  # type: ignore[arg-type]


def run(*arguments: str) -> int:
    """The status that the command line ends with."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_no_options_change_nothing() -> None:
    """Without options the consortium is the file's, to the last default."""
    for preset in ("tiny", "demo", "paper"):
        config = load_consortium(preset)
        assert overridden(config) == config


def test_each_option() -> None:
    """Each option changes its own key and no other."""
    config = load_consortium("tiny")
    training = config.training.model_copy(update={"rounds": 9})
    assert overridden(rounds=9) == config.model_copy(update={"training": training})
    assert overridden(seed=7) == config.model_copy(update={"seed": 7})
    assert overridden(continue_rounds=2) == config.model_copy(update={"continue_rounds": 2})
    assert overridden(oracle=False).assessment.oracle is False
    assert overridden(method="retain-ft").unlearning.method == "retain-ft"


def test_withdraw_replaces_the_file_s() -> None:
    """Named sites leave together instead of those in the file, at the round that is given."""
    (only,) = overridden(withdraw=["brain", "abdomen"], at_round=3).withdrawals
    assert (only.sites, only.at_round) == (("brain", "abdomen"), 3)
    (only,) = overridden(at_round=2).withdrawals
    assert (only.sites, only.at_round) == (("knee",), 2)
    assert overridden(withdraw=["brain"]).withdrawals[0].at_round is None


def test_settings_belong_to_the_method() -> None:
    """Settings add to the file's, but those of another method than the file's are dropped with it."""
    tiny = load_consortium("tiny")
    unlearning = tiny.unlearning.model_copy(update={"settings": {"alpha": 9.0, "recency": 0.5}})
    config = tiny.model_copy(update={"unlearning": unlearning})
    assert overridden(config, setting=["alpha=1"]).unlearning.settings == {"alpha": 1, "recency": 0.5}
    assert overridden(config, method="retain-ft").unlearning.settings == {}
    same = overridden(config, method="cached-ascent", setting=["alpha=2"])
    assert same.unlearning.settings == {"alpha": 2, "recency": 0.5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("guard=none", "none"),
        ("alpha=2", 2),
        ("alpha=2.5", 2.5),
        ("learning-rate=1e-3", 1e-3),
        ("orthogonalise=true", True),
        ("orthogonalise=false", False),
        (" alpha =-1", -1),
    ],
)
def test_values_of_settings(text: str, value: object) -> None:
    """A value is the boolean, whole number, number or word it looks like."""
    (found,) = overridden(setting=[text]).unlearning.settings.values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"setting": ["alpha"]}, "key=value, got 'alpha'"),
        ({"withdraw": ["kne"]}, "did you mean 'knee'"),
        ({"withdraw": ["knee", "brain", "abdomen"]}, "all sites would be withdrawn"),
        ({"at_round": 7, "rounds": 6}, "only 6 training rounds"),
        ({"rounds": 0}, "training.rounds"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], words: str) -> None:
    """Options that fit neither the consortium nor each other are refused with the reason."""
    with pytest.raises(ConfigError, match=words):
        overridden(**options)


def test_a_late_withdrawal_makes_the_training_as_long() -> None:
    """A round beyond the file's training is trained to, unless --rounds says otherwise."""
    found = overridden(withdraw=["knee"], at_round=60)
    assert (found.training.rounds, found.withdrawals[0].at_round) == (60, 60)
    assert overridden(at_round=2).training.rounds == 6


def test_cooperation_is_asked_for_or_the_files_own() -> None:
    """--cooperating goes with --withdraw or the file's withdrawal; otherwise what the file says stays."""
    assert overridden(withdraw=["brain"], cooperating=True).withdrawals[0].cooperating
    assert not overridden(withdraw=["brain"]).withdrawals[0].cooperating
    asked = overridden(cooperating=True)
    assert asked.withdrawals[0].cooperating and asked.withdrawals[0].sites == ("knee",)
    assert overridden(asked, at_round=2).withdrawals[0].cooperating
    assert not overridden(asked, cooperating=False).withdrawals[0].cooperating


def test_patients_of_a_site_that_stays(tmp_path: Path) -> None:
    """A file names them, one a line; a file that names nobody or is not there is refused."""
    listed = tmp_path / "leaving.txt"
    listed.write_text("# two\nknee-000\n\n  knee-001  # the second\nknee-000\n")
    names = pseudonyms_in(listed)
    assert names == ("knee-000", "knee-001")
    config = overridden(withdraw=["knee"], patients=names)
    assert config.patients_leaving("knee") == set(names)
    assert config.leavers() == []
    assert parse_consortium(
        tomllib.loads(dump_consortium(config)), where="again", base=tmp_path
    ).withdrawals == (config.withdrawals)
    listed.write_text("# nobody\n")
    with pytest.raises(ConfigError, match="names no patient"):
        pseudonyms_in(listed)
    with pytest.raises(ConfigError, match="cannot be read"):
        pseudonyms_in(tmp_path / "missing.txt")
    with pytest.raises(ConfigError, match="the one site"):
        overridden(withdraw=["knee", "brain"], patients=names)
    with pytest.raises(ConfigError, match="withdrawn twice"):
        table = overridden().model_dump(by_alias=True)
        table["withdrawals"] = [{"sites": ["knee"], "patients": names}, {"sites": ["knee"]}]
        parse_consortium(table, where="a file", base=tmp_path)


def test_patients_who_could_not_leave(tmp_path: Path) -> None:
    """Unknown patients, ones nobody trained on, and all there are: refused before anything is trained."""
    config = overridden(withdraw=["knee"], patients=("knee-000",))
    with RunDirectory(tmp_path).environment():
        prepare_data(config, lambda *_: None)
        split = site_split(config.seed, config.site("knee"))
        for patients, words in (
            (("knee-999",), "has no patients knee-999"),
            (split.test, "only tests on"),
            (split.train, "none to train"),
        ):
            with pytest.raises(DataError, match=words):
                prepare_data(overridden(withdraw=["knee"], patients=patients), lambda *_: None)
        prepare_data(overridden(withdraw=["knee"], patients=split.train[:1]), lambda *_: None)


def test_round_without_a_site() -> None:
    """A round alone does not say who leaves, if the file has nobody leave."""
    config = load_consortium("tiny").model_copy(update={"withdrawals": ()})
    with pytest.raises(ConfigError, match="say more of a withdrawal") as caught:
        overridden(config, at_round=2)
    assert "--withdraw" in caught.value.remedy


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("simulate", "tinny"), ("'tinny' is neither a preset", "Presets are: demo, paper, tiny")),
        (("simulate", "absent.toml"), ("absent.toml", "Check the path")),
        (("simulate", "tiny", "--withdraw", "kne"), ("did you mean 'knee'",)),
        (("simulate", "tiny", "--method", "cached-asent"), ("Did you mean 'cached-ascent'",)),
        (("simulate", "tiny", "--set", "alhpa=1"), ("unknown setting 'alhpa'", "did you mean 'alpha'")),
        (("simulate", "tiny", "--set", "alpha=-1"), ("alpha", "greater than or equal to 0")),
    ],
)
def test_errors_have_no_traceback(
    arguments: tuple[str, ...],
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mistake ends with status 1 and one message: what is wrong, and what to do; nothing is made."""
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Error: ")
    assert "Traceback" not in printed.err
    for word in words:
        assert word in printed.err
    assert list(tmp_path.iterdir()) == []


def test_out_of_another_consortium(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that holds another consortium's run is refused and left as it is."""
    out = tmp_path / "run"
    RunDirectory(out).prepare(overridden())
    before = (out / "consortium.toml").read_bytes()
    RunDirectory(out).prepare(overridden())
    assert run("simulate", "tiny", "--seed", "1", "--out", str(out)) == 1
    error = capsys.readouterr().err
    assert "holds a run of a different consortium" in error
    assert "Choose another --out" in error
    assert (out / "consortium.toml").read_bytes() == before
    assert load_consortium(out / "consortium.toml") == overridden()


def test_data_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A data directory that does not exist is named with its site, before anything is trained."""
    config = load_consortium("tiny")
    sites = (config.sites[0].model_copy(update={"data": tmp_path / "nowhere"}), *config.sites[1:])
    file = tmp_path / "hospitals.toml"
    file.write_text(dump_consortium(config.model_copy(update={"sites": sites})))
    assert run("simulate", str(file), "--out", str(tmp_path / "run"), "--quiet") == 1
    error = capsys.readouterr().err
    assert "site 'brain' does not exist" in error
    assert "nowhere" in error


def test_help_reads_like_a_manual(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command says what it is for; `simulate` explains every option and gives examples."""
    assert run("--help") == 0
    overview = capsys.readouterr().out
    for word in ("simulate", "methods", "data", "withdraws", "--version"):
        assert word in overview
    assert run("simulate", "--help") == 0
    page = capsys.readouterr().out
    for option in ("--withdraw", "--at-round", "--method", "--set", "--oracle", "--out", "--seed", "--json"):
        assert option in page
    assert "reconsent simulate tiny --withdraw knee --method retain-ft" in " ".join(page.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is that of the package."""
    assert run("--version") == 0
    assert capsys.readouterr().out == f"reconsent {__version__}\n"


def test_methods(capsys: pytest.CaptureFixture[str]) -> None:
    """Every method is listed with its strongest claim and each of its settings."""
    from strategies import METHODS

    assert run("methods") == 0
    page = capsys.readouterr().out
    for name, method in METHODS.items():
        assert name in page
        assert method.claim_level in page
        for key, field in method.settings_type.model_fields.items():
            assert (field.alias or key) in page


def test_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    """An option that does not exist ends with status 2 and names itself."""
    assert run("simulate", "--widthraw", "knee") == 2
    assert "--widthraw" in capsys.readouterr().err


def test_out_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory of scans, say, is refused by the names of what is there, and nothing is written to it."""
    for number in range(7):
        (tmp_path / f"scan-{number}.h5").touch()
    assert run("simulate", "tiny", "--out", str(tmp_path)) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "scan-0.h5" in error and "2 more" in error and "another --out" in error
    assert len(list(tmp_path.iterdir())) == 7


def test_out_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in the place of the run's directory is refused with a remedy and without a traceback."""
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        assert run("simulate", "tiny", "--out", str(place)) == 1
        error = capsys.readouterr().err
        assert "cannot be written" in error
        assert "--out" in error


def test_sites_that_share_patients(tmp_path: Path) -> None:
    """Two sites on one directory with the same patients are refused by name."""
    config = load_consortium("tiny")
    first, second, *_ = config.sites
    synthesise_directory(tmp_path / "d", first.organ, first.phantom, seed=0, prefix="p")
    sites = (
        first.model_copy(update={"data": tmp_path / "d"}),
        second.model_copy(update={"data": tmp_path / "d", "organ": first.organ}),
    )
    with pytest.raises(
        DataError, match=f"'{first.name}' and '{second.name}' share {first.phantom.patients} "
    ):
        prepare_data(config.model_copy(update={"sites": sites}), lambda *_: None)


def _imported(directory: Path, seed: int, patient: str = "") -> None:
    """Three volumes as an import writes them, or, without a ``patient``, phantoms; both of the same names."""
    small = PhantomConfig(patients=1, slices=1, matrix=(32, 32), coils=1)
    for index in range(3):
        volume = synthesise_volume("brain", small, seed=seed, name=f"v-{index}")
        if patient:
            volume = replace(volume, patient=f"{patient}{index}", provenance="retrospective")
        write_volume(directory / f"v-{index}.h5", volume)


def test_sites_that_share_patients_of_different_directories(tmp_path: Path) -> None:
    """The same pseudonyms, and the same bytes under other names, are refused; equal names alone are not."""
    config = load_consortium("tiny")
    first, second, *_ = config.sites
    one, other = tmp_path / "one", tmp_path / "other"

    def prepared(patients: tuple[str, ...] = ()) -> None:
        own = second.model_copy(update={"data": other, "organ": first.organ, "patients": patients})
        sites = (first.model_copy(update={"data": one}), own)
        prepare_data(config.model_copy(update={"sites": sites}), lambda *_: None)

    _imported(one, seed=1)
    _imported(other, seed=2)
    prepared()
    shutil.copyfile(one / "v-1.h5", other / "w-1.h5")
    (other / "v-1.h5").unlink()
    with pytest.raises(DataError, match=r"share 1 volumes: .*one/v-1\.h5 and .*other/w-1\.h5"):
        prepared()
    prepared(("v-0", "v-2"))
    (other / "w-1.h5").unlink()
    _imported(one, seed=1, patient="p-")
    _imported(other, seed=2, patient="p-")
    with pytest.raises(DataError, match=r"share 3 patients, in different .*: p-0, p-1, p-2\."):
        prepared()
    _imported(other, seed=2, patient="q-")
    prepared()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"name": "../up"}, "name"),
        ({"training": {"learning-rate": float("nan")}}, "finite"),
        ({"assessment": {"relearn-steps": []}}, "relearn-steps"),
        ({"assessment": {"relearn-steps": [0]}}, "relearn-steps"),
        ({"training": {"min-sites": 3}}, "min-sites is 3, but only 2"),
    ],
)
def test_values_out_of_range(table: dict[str, object], words: str) -> None:
    """Values that no run could be made with are refused when the file is read."""
    sites = [{"name": name, "organ": "brain"} for name in ("a", "b")]
    with pytest.raises(ConfigError, match=words):
        parse_consortium({"sites": sites, **table}, where="x", base=Path())


def test_path_is_no_preset(tmp_path: Path) -> None:
    """A path without its ending never becomes another file."""
    (tmp_path / "foo.toml").write_text(dump_consortium(load_consortium("tiny")))
    with pytest.raises(ConfigError, match="neither a preset"):
        load_consortium(str(tmp_path / "foo"))
