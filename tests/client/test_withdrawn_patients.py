"""Patients who withdrew from a site that stays: nothing is trained or tested on them, but to forget them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord

import client.site
from client.site import Site, identify_site
from reconsent.errors import DataError
from strategies import messages as msg
from tests.client.hospital import Hospital


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Six patients of two slices each."""
    return Hospital.built(tmp_path_factory.mktemp("north"), [f"p-{number}" for number in range(6)])


@pytest.fixture(scope="module")
def model(hospital: Hospital) -> ArrayRecord:
    """The untrained reconstructor."""
    return msg.arrays_of(hospital.ask("query.initialise"))


def site_of(hospital: Hospital) -> Site:
    """The site as it is without anybody's withdrawal."""
    return identify_site({"site": "north"}, {"consortium": str(hospital.file)}, {})


def policy(hospital: Hospital, *patients: str) -> dict[str, object]:
    """A node whose policy names patients."""
    hospital.policy.write_text(f"withdrawn-patients = {list(patients)}\n")
    return {"policy": str(hospital.policy)}


def theta(record: ArrayRecord) -> np.ndarray:
    """All parameters in one vector."""
    return np.concatenate([array.reshape(-1) for array in msg.named_arrays(record).values()])


def test_the_others_stay_where_they_are(hospital: Hospital) -> None:
    """Whoever withdraws is in neither set, and nobody else moves from one to the other."""
    site = site_of(hospital)
    split = site.split()
    gone = {split.train[0], split.train[2]}
    left = site.without(gone)
    assert set(left.dataset("train").patients) == set(split.train) - gone
    assert set(left.dataset("gate").patients) == set(split.train) - gone
    assert set(left.dataset("test").patients) == set(split.test)
    assert left.split() == split
    assert left.training_slices() == site.training_slices() - 4
    forget = left.forget_set()
    assert set(forget.dataset("train").patients) == gone
    assert forget.training_slices() == 4


def test_somebody_must_remain(hospital: Hospital) -> None:
    """With nobody left to train or to test on the site says so; with nobody to forget it says that."""
    site = site_of(hospital)
    for patients in (site.split().train, site.split().test):
        with pytest.raises(DataError, match="have withdrawn"):
            site.without(patients).dataset("train")
    with pytest.raises(DataError, match="has none that withdrew"):
        site.without(site.split().test).forget_set().dataset("train")


def test_the_policy_is_followed_at_the_next_message(hospital: Hospital, model: ArrayRecord) -> None:
    """A patient named in it is neither counted, nor trained, nor measured from then on; the list may grow."""
    split = site_of(hospital).split()
    for gone in ((), split.train[:1], split.train[:2]):
        node = policy(hospital, *gone)
        who = hospital.ask("query.identify", node=node)
        reply = hospital.ask("train", arrays=model, node=node)
        expected = 2 * (len(split.train) - len(gone))
        assert msg.config_of(who)[msg.NUM_EXAMPLES] == expected
        assert msg.metrics_of(reply)[msg.NUM_EXAMPLES] == expected


def test_the_forget_set_alone_is_trained_on(hospital: Hospital, model: ArrayRecord) -> None:
    """Told to forget, it works on those patients; by training on them alone one gets the same update."""
    split = site_of(hospital).split()
    node = policy(hospital, *split.train[:2])
    told = {msg.FORGET_SET: True, msg.TASK: msg.ASCEND, msg.GAMMA: 0.0}
    reply = hospital.ask("train", arrays=model, node=node, config=told)
    assert msg.metrics_of(reply)[msg.NUM_EXAMPLES] == 4
    rest = policy(hospital, *split.train[2:])
    other = hospital.ask(
        "train", arrays=model, node=rest, config={key: told[key] for key in (msg.TASK, msg.GAMMA)}
    )
    np.testing.assert_array_equal(theta(msg.arrays_of(reply)), theta(msg.arrays_of(other)))
    assert not np.array_equal(theta(msg.arrays_of(reply)), theta(model))


def test_a_server_cannot_name_patients(hospital: Hospital, model: ArrayRecord) -> None:
    """What it says of patients who left changes nothing at a site that names none; to forget is refused."""
    told = {msg.PATIENTS_LEFT: True}
    assert msg.metrics_of(hospital.ask("train", arrays=model, config=told))[msg.NUM_EXAMPLES] == 2 * len(
        site_of(hospital).split().train
    )
    reply = hospital.ask("train", arrays=model, config={**told, msg.FORGET_SET: True, msg.TASK: msg.ASCEND})
    assert "DataError" in (reply.error.reason or "")
    assert "p-" not in (reply.error.reason or "")


def test_a_misspelt_list_forbids_everything(hospital: Hospital, model: ArrayRecord, tmp_path: Path) -> None:
    """A policy whose list cannot be read is no policy without a list."""
    bad = tmp_path / "policy.toml"
    bad.write_text("withdrawn-patient = ['p-0']\n")
    reply = hospital.ask("train", arrays=model, node={"policy": str(bad)})
    assert "policy-unreadable" in (reply.error.reason or "")


def test_who_is_gone_with_the_files_keeps_a_place_in_the_split(tmp_path: Path) -> None:
    """Nobody changes sides when the files of a patient who withdrew are removed; they are counted no more."""
    hospital = Hospital.built(tmp_path, [f"p-{number}" for number in range(9)])
    before = site_of(hospital).split()
    for gone in (before.train[0], before.test[0]):
        left = site_of(hospital).without([gone])
        assert left.left_out() == {gone}
        (hospital.data / f"{gone}.h5").rename(tmp_path / "away.h5")
        client.site._known_split.cache_clear()
        client.site._known_patients.cache_clear()
        left = site_of(hospital).without([gone])
        assert left.split() == before
        assert left.left_out() == frozenset()
        assert set(left.dataset("train").patients) == set(before.train) - {gone}
        (tmp_path / "away.h5").rename(hospital.data / f"{gone}.h5")
        client.site._known_patients.cache_clear()


def test_the_site_says_how_many_it_leaves_out(hospital: Hospital, model: ArrayRecord) -> None:
    """Those it has data of, by their number; who is misspelt is not among them."""
    split = site_of(hospital).split()
    reply = hospital.ask("train", arrays=model, node=policy(hospital, split.train[0], "misspelt"))
    assert msg.metrics_of(reply)[msg.LEFT_OUT] == 1
    assert msg.LEFT_OUT not in msg.metrics_of(hospital.ask("train", arrays=model))
