"""An operator's day, by the command line: train, withdraw in the middle, lose the SuperLink, go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import processes
from deploy.layout import SUPERLINK
from deploy.local_consortium import LocalConsortium
from reconsent.config import dump_consortium, load_consortium
from server.persistence import Enrolments, StateDirectory
from tests.integration.operator_at_work import Operator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SITES = ("brain", "abdomen", "knee")


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """A consortium of three hospitals that is up."""
    directory = tmp_path_factory.mktemp("day")
    tiny = load_consortium("tiny")
    config = tiny.model_copy(
        update={
            "sites": tuple(site for site in tiny.sites if site.name in SITES),
            "withdrawals": (),
            "training": tiny.training.model_copy(
                update={"local_steps": 1, "evaluate_every": 2, "join_seconds": 300.0}
            ),
            "unlearning": tiny.unlearning.model_copy(update={"rounds_fraction": 0.5}),
        }
    )
    file = directory / "consortium.toml"
    file.write_text(dump_consortium(config))
    typed = Operator(directory / "state")
    try:
        typed("up", str(file))
        yield typed
    finally:
        typed("down")
        assert processes.strays(str(LocalConsortium(typed.state).layout.root)) == []


def test_a_withdrawal_filed_while_rounds_run(operator: Operator) -> None:
    """The site is barred at once, unlearned by the others, and the training reaches its target without it."""
    assert {site["name"] for site in operator.status()["sites"]} == set(SITES)
    operator("train", "--rounds", "4", "--detach")
    operator.wait(lambda found: found["round"] >= 1)
    operator("withdraw", "knee", "--reason", "consent withdrawn", "--requested-by", "dpo@example.org")
    status = {site["name"]: site for site in operator.status()["sites"]}
    assert status["knee"]["status"] in ("restricted", "withdrawn")
    assert status["knee"]["key"]["revoked"]
    found = operator.wait(lambda found: found["run"]["status"] in ("completed", "failed"))
    assert found["run"] == {**found["run"], "task": "train", "status": "completed", "error": ""}
    assert found["round"] == found["target"] == 4
    assert [(w["site"], w["state"]) for w in found["withdrawals"]] == [("knee", "completed")]
    knee = next(site for site in found["sites"] if site["name"] == "knee")
    assert (knee["status"], knee["node"]) == ("withdrawn", "unregistered")
    assert found["model"]["forgotten"] == ["knee"]
    assert found["contributions"]["sites"] == ["abdomen", "brain"]
    assert not list((operator.state / "contributions").glob("knee*"))
    versions = json.loads(operator("model", "list", "--json"))
    held = [v for v in versions if "knee" in v["lineage"] and "knee" not in v["forgotten"]]
    assert held
    assert {v["status"] for v in held} == {"revoked"}


def test_the_superlink_is_killed_while_rounds_run(operator: Operator) -> None:
    """After `up` and `resume` the training goes on from the last completed round to its target."""
    before = operator.status()["round"]
    operator("train", "--rounds", "3", "--detach")
    operator.wait(lambda found: found["round"] > before)
    link = next(c for c in LocalConsortium(operator.state).describe() if c.name == SUPERLINK)
    assert link.pid is not None
    os.kill(link.pid, signal.SIGKILL)
    while LocalConsortium(operator.state).describe()[0].status == "running":
        time.sleep(0.2)
    killed = operator.status()
    assert killed["run"]["status"] == "interrupted"
    done = killed["round"]
    operator("up")
    operator("resume")
    found = operator.status()
    assert found["round"] == found["target"] == before + 3 > done
    assert found["run"]["status"] == "completed"
    assert {w["state"] for w in found["withdrawals"]} == {"completed"}


def test_a_key_is_replaced_without_a_withdrawal(operator: Operator, tmp_path: Path) -> None:
    """The old node is refused for ever, the new one speaks for the site in the next round."""
    before = operator.status()
    old = next(site for site in before["sites"] if site["name"] == "brain")
    keys = LocalConsortium(operator.state).layout.keys
    with pytest.raises(AssertionError, match="used before"):
        operator("site", "replace-key", "brain", "--public-key", str(keys / "knee.pub"))
    reconsent = str(Path(sys.executable).parent / "reconsent")
    subprocess.run([reconsent, "site", "key", str(tmp_path / "brain")], check=True, capture_output=True)
    for _ in range(2):
        operator("site", "replace-key", "brain", "--public-key", str(tmp_path / "brain.pub"))
    nodes = {node.node_id: node for node in LocalConsortium(operator.state).control.list_nodes()}
    assert nodes[int(old["node_id"])].status == "unregistered"
    assert [node.name for node in nodes.values()].count("brain") == 2
    for name in ("brain", "brain.pub"):
        (keys / name).write_bytes((tmp_path / name).read_bytes())
    operator("up")
    operator("train", "--rounds", "1")
    found = operator.status()
    brain = next(site for site in found["sites"] if site["name"] == "brain")
    assert brain["key"]["fingerprint"] != old["key"]["fingerprint"] and not brain["key"]["revoked"]
    assert (brain["status"], brain["node"], brain["first_round"]) == ("active", "online", 1)
    assert brain["last_round"] > old["last_round"]
    assert found["contributions"]["sites"] == before["contributions"]["sites"]
    with StateDirectory.open(operator.state, url="", writable=False) as state:
        first, second = [e for e in Enrolments(state).all() if e.site == "brain"]
        assert first.reason == f"replaced by the key {second.fingerprint}" and first.unregistered_at


def test_a_site_comes_back_with_a_new_key_only(operator: Operator, tmp_path: Path) -> None:
    """The old key is refused for ever; with a new one the site is a newcomer."""
    old = operator.state / "deployment" / "keys" / "knee.pub"
    with pytest.raises(AssertionError, match="used before"):
        operator("site", "readmit", "knee", "--public-key", str(old))
    reconsent = str(Path(sys.executable).parent / "reconsent")
    subprocess.run([reconsent, "site", "key", str(tmp_path / "knee")], check=True, capture_output=True)
    operator("site", "readmit", "knee", "--public-key", str(tmp_path / "knee.pub"))
    knee = next(site for site in operator.status()["sites"] if site["name"] == "knee")
    assert (knee["status"], knee["first_round"], knee["node"]) == ("active", None, "registered")


def test_a_revoked_version_is_exported_by_force_only(operator: Operator, tmp_path: Path) -> None:
    """The current model is written to a file; one that holds the withdrawn site's updates is refused."""
    operator("model", "export", "latest", "--out", str(tmp_path / "model.safetensors"))
    assert (tmp_path / "model.safetensors").stat().st_size > 1000
    operator("model", "export", "latest", "--out", str(tmp_path / "model.pt"), "--format", "torchscript")
    assert (tmp_path / "model.pt").read_bytes().startswith(b"PK"), "an archive, as torch.jit.load reads it"
    versions = json.loads(operator("model", "list", "--json"))
    revoked = next(v["version"] for v in versions if v["status"] == "revoked" and not v["pruned"])
    with pytest.raises(AssertionError, match="revoked"):
        operator("model", "export", revoked, "--out", str(tmp_path / "no.safetensors"))
    assert not (tmp_path / "no.safetensors").exists()
