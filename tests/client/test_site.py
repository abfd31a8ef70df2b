"""Which site a node is, where its data are, and how its patients are split."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.site import Site, identify_site, site_directory, site_split
from reconsent.config import ConsortiumConfig, PhantomConfig, SiteConfig, dump_consortium
from reconsent.environment import phantoms_path
from reconsent.errors import ConfigError, DataError

PHANTOM = PhantomConfig(patients=8, slices=1, matrix=(32, 32), coils=1)


def site(name: str, **changes: object) -> SiteConfig:
    """A site with small phantoms."""
    return SiteConfig.model_validate({"name": name, "organ": "brain", "phantom": PHANTOM, **changes})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A consortium file of two sites, and no settings from outside."""
    for name in ("RECONSENT_PHANTOMS", "RECONSENT_STATE", "RECONSENT_CONSORTIUM"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "two.toml"
    path.write_text(dump_consortium(ConsortiumConfig(sites=(site("north"), site("south")))))
    return path


def test_deployed_node_says_its_site(file: Path) -> None:
    """The node configuration's site counts, and its data directory stands above the file's."""
    found = identify_site({"site": "south", "data": "/hospital/scans"}, {"consortium": str(file)}, {})
    assert found.name == "south"
    assert found.config.data == Path("/hospital/scans")


def test_simulated_node_is_counted(file: Path) -> None:
    """In a simulation the partition number counts the consortium's sites."""
    names = [identify_site({"partition-id": n}, {"consortium": str(file)}, {}).name for n in (0, 1)]
    assert names == ["north", "south"]


def test_environment_stands_above_the_run(file: Path, tmp_path: Path) -> None:
    """A site may keep its own copy of the consortium file, whatever the run names."""
    environment = {"RECONSENT_CONSORTIUM": str(file)}
    found = identify_site({"site": "north"}, {"consortium": str(tmp_path / "absent.toml")}, environment)
    assert found.consortium.site("south")


@pytest.mark.parametrize(
    ("node", "run", "words"),
    [
        ({"site": "north"}, {}, "not said which consortium"),
        ({}, {"consortium": "two"}, "does not say which site"),
        ({"site": "nroth"}, {"consortium": "two"}, "Sites are: north, south"),
        ({"partition-id": 2}, {"consortium": "two"}, "Simulate 2 nodes"),
        ({"partition-id": -1}, {"consortium": "two"}, "Simulate 2 nodes"),
        ({"site": "north"}, {"consortium": "one-that-is-not.toml"}, "no consortium file"),
    ],
)
def test_what_is_missing_is_named(
    node: dict[str, object], run: dict[str, object], words: str, file: Path
) -> None:
    """A node that cannot be a site is told what is missing and what to do."""
    run = {key: str(file) if value == "two" else value for key, value in run.items()}
    with pytest.raises(ConfigError) as caught:
        identify_site(node, run, {})
    assert words in str(caught.value)
    assert caught.value.remedy


def test_missing_data_directory(tmp_path: Path) -> None:
    """A data directory that is not there is named together with its site."""
    with pytest.raises(DataError, match=r"'north' does not exist: .*/nowhere"):
        site_directory(0, site("north", data=tmp_path / "nowhere"))


def test_phantoms_lie_in_the_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a directory of their own phantoms go where the server keeps its state, found in its order."""
    assert phantoms_path({}, {"RECONSENT_PHANTOMS": "/p", "RECONSENT_STATE": "/s"}) == Path("/p")
    assert phantoms_path({"state": "/r"}, {"RECONSENT_STATE": "/s"}) == Path("/r/phantoms")
    assert phantoms_path({"state": ""}, {"RECONSENT_STATE": "/s"}) == Path("/s/phantoms")
    monkeypatch.chdir(tmp_path)
    assert phantoms_path({"state": ""}, {}) == tmp_path / "reconsent-state" / "phantoms"


def test_identified_site_uses_the_run_s_state(file: Path, tmp_path: Path) -> None:
    """A site finds its phantoms under the state directory that the run configuration names."""
    run = {"consortium": str(file), "state": str(tmp_path / "state")}
    found = identify_site({"site": "north"}, run, {})
    assert len(found.dataset("train")) == 6
    assert len(list((tmp_path / "state" / "phantoms" / "north").glob("*.h5"))) == 8


def test_split_by_patient(tmp_path: Path) -> None:
    """Training and test patients are apart, together everybody, and in the proportion asked for."""
    split = site_split(0, site("north"), root=tmp_path)
    assert len(split.train) == 6
    assert len(split.test) == 2
    assert not set(split.train) & set(split.test)
    built = Site(ConsortiumConfig(sites=(site("north"), site("south"))), site("north"), tmp_path)
    assert built.split() == split
    assert set(built.dataset("train").patients) == set(built.dataset("gate").patients) == set(split.train)
    assert set(built.dataset("test").patients) == set(split.test)


def test_split_depends_on_seed_and_site(tmp_path: Path) -> None:
    """Another seed splits otherwise; the same seed the same way, also when the phantoms are there already."""
    first = site_split(0, site("north"), root=tmp_path / "a")
    assert site_split(0, site("north"), root=tmp_path / "a") == first
    others = {site_split(seed, site("north"), root=tmp_path / f"b{seed}") for seed in range(1, 6)}
    assert others != {first}


def test_only_named_patients(tmp_path: Path) -> None:
    """A site that names patients uses only those; one that is not there is an error that says so."""
    root = tmp_path
    chosen = ("north-001", "north-004", "north-005", "north-006")
    split = site_split(0, site("north", patients=chosen), root=root)
    assert sorted((*split.train, *split.test)) == list(chosen)
    with pytest.raises(DataError, match="north-099"):
        site_split(0, site("north", patients=("north-001", "north-099")), root=root)


def test_too_few_patients_names_site_and_directory(tmp_path: Path) -> None:
    """With one patient there is nothing to test on; the message says which site, and where its data are."""
    with pytest.raises(
        DataError, match=r"Site 'north' has 1 patient in .*north; training and testing need 2"
    ):
        site_split(0, site("north", patients=("north-001",)), root=tmp_path)


def test_masks_are_fresh_in_training_only(tmp_path: Path) -> None:
    """Training draws masks anew in every epoch; gate and test keep theirs, so that models compare."""
    built = Site(ConsortiumConfig(sites=(site("north"), site("south"))), site("north"), tmp_path)
    assert [built.dataset(split).fresh_masks for split in ("train", "gate", "test")] == [True, False, False]
