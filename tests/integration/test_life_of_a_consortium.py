"""Withdrawal while rounds run, everything killed, a cable cut, keys replaced: what of the work is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from client.app import app
from client.node.keys import make_key_pair
from deploy import processes
from deploy.layout import SUPERLINK, supernode
from deploy.processes import ProcessTable
from reconsent.config import ConsortiumConfig
from reconsent.environment import CONSORTIUM_VARIABLE, PHANTOMS_VARIABLE
from reconsent.faults import VARIABLE
from server.coordinator import Coordinator
from server.persistence import Enrolments, RoundRecord, StateDirectory
from server.service import Service, Task
from strategies.local_grid import LocalGrid
from tests.integration.disturbances import (
    alive_at,
    cabled,
    expired_replies,
    hung,
    kill_all,
    little_patience,
    misbehaving,
    outcomes,
)
from tests.integration.misbehaving_app import HANGS, NONSENSE
from tests.integration.one_thread import one_thread
from tests.integration.operator_at_work import Operator
from tests.integration.traces import found as found_in
from tests.integration.traces import pieces_of_an_update
from tests.integration.undisturbed import copied, digest, hurried, kept, repeated
from unlearning.withdrawal import WithdrawalState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROUNDS = 8
"""So many that an operator can file a withdrawal while they run."""


@pytest.fixture(scope="module", autouse=True)
def up(operator: Operator) -> None:
    """Other tests of the same consortium may have stopped it."""
    operator("up", "--no-metrics")


def test_training_outlives_whoever_watches(operator: Operator) -> None:
    """Ctrl-C ends the watching only; the run goes on."""
    watching = operator.start("train", "--rounds", str(ROUNDS))
    try:
        operator.wait(lambda found: found["round"] >= 1)
        watching.send_signal(signal.SIGINT)
        printed, _ = watching.communicate(timeout=60)
    finally:
        watching.kill()
    assert watching.returncode == 130 and "`reconsent attach` returns" in printed


def test_a_withdrawal_while_rounds_run_and_all_is_killed(
    operator: Operator, config: ConsortiumConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The site is barred at once; every process is killed amid its unlearning, and the ServerApp once more
    amid the erasure of what was kept; after `up` and `resume`, amid which another run is refused, the model
    is, bit for bit, that of a run to which nothing happened; and an update of the site, whose bytes were in
    the SuperLink's files before, is in no file any more.
    """  # noqa: D205 - one sentence
    pieces = pieces_of_an_update(operator, "knee")
    asked = "--reason", "consent withdrawn", "--requested-by", "dpo@example.org"
    filing = operator.start("withdraw", "knee", *asked)
    # It takes little longer than the command that asks for it.
    operator.wait(lambda found: [w["state"] for w in found["withdrawals"]] == ["unlearning"])
    printed, _ = filing.communicate(timeout=120)
    assert filing.returncode == 0, printed
    kill_all(operator)
    killed = operator.status()
    assert killed["superlink"]["health"] == "unreachable"
    assert killed["run"]["status"] == "interrupted" and killed["round"] < ROUNDS
    assert killed["withdrawals"][0]["state"] == "unlearning"
    knee = next(site for site in killed["sites"] if site["name"] == "knee")
    assert knee["status"] in ("restricted", "withdrawn") and knee["key"]["revoked"]

    with monkeypatch.context() as environment:
        environment.setenv(VARIABLE, "erasure-committed")
        operator("up", "--no-metrics")
    operator("resume", "--detach")
    with pytest.raises(AssertionError, match="is under way"):
        operator("train", "--rounds", "1")
    with pytest.raises(AssertionError, match="`reconsent resume`"):
        operator("attach")
    killed = operator.status()
    assert killed["run"]["status"] == "interrupted"
    assert killed["withdrawals"][0]["state"] == "propagating"
    assert killed["contributions"]["sites"] == ["abdomen", "brain"]
    assert list((operator.state / "contributions").glob("knee*")), "erased in the books, not yet on disk"
    # To be started again without the variable.
    link = operator.process(SUPERLINK)
    link.kill()
    psutil.wait_procs([link], timeout=20)
    operator("up", "--no-metrics")
    operator("resume")
    found = operator.status()
    assert found["superlink"]["health"] == "serving"
    assert found["run"] == {**found["run"], "task": "resume", "status": "completed", "error": ""}
    assert found["round"] == found["target"] == ROUNDS
    assert [(w["site"], w["state"]) for w in found["withdrawals"]] == [("knee", "completed")]
    knee = next(site for site in found["sites"] if site["name"] == "knee")
    assert (knee["status"], knee["node"]) == ("withdrawn", "unregistered")
    assert found["model"]["forgotten"] == ["knee"]
    assert found["contributions"]["sites"] == ["abdomen", "brain"]
    assert not list((operator.state / "contributions").glob("knee*"))
    assert pieces and found_in(operator, pieces) == {}
    versions = json.loads(operator("model", "list", "--json"))
    held = [v for v in versions if "knee" in v["lineage"] and "knee" not in v["forgotten"]]
    assert held and {v["status"] for v in held} == {"revoked"}

    monkeypatch.setenv(CONSORTIUM_VARIABLE, str(operator.layout.consortium))
    monkeypatch.setenv(PHANTOMS_VARIABLE, str(operator.layout.sites))
    records = operator.records()
    assert all(record.sites[site].outcome == "ok" for record in records for site in ("brain", "abdomen"))
    with StateDirectory.open(operator.state, url="", writable=False) as state:
        assert digest(state) == undisturbed(config, records, tmp_path / "undisturbed")


def undisturbed(config: ConsortiumConfig, records: list[RoundRecord], path: Path) -> str:
    """The model of the same rounds in one process, where nothing happens."""
    trained = [record for record in records if record.kind == "train"]
    together = sum("knee" in r.sites and r.sites["knee"].outcome == "ok" for r in trained)
    first_unlearning = next(n for n, record in enumerate(records) if record.kind != "train")
    assert together >= 1
    nodes = {n: {"site": site.name} for n, site in enumerate(config.sites, start=1)}
    rest = {n: node for n, node in nodes.items() if node["site"] != "knee"}
    with one_thread(), StateDirectory.open(path, url="") as state:

        def opened(present: dict[int, dict[str, str]]) -> Coordinator:
            return Coordinator(LocalGrid(app, present), hurried(config), state, simulated=False)

        Service(opened(nodes)).carry_out(Task("train", together))
        if together < first_unlearning:
            # The round in which the withdrawal was filed ended without the site's reply.
            Service(opened(rest)).carry_out(Task("train", first_unlearning - together))
        last = opened(rest)
        last.withdrawals.file(["knee"], reason="asked", requested_by="officer", restrict=True)
        left = ROUNDS - first_unlearning
        Service(last).carry_out(Task("train", left) if left else Task("unlearn"))
        assert last.withdrawals.all()[0].state is WithdrawalState.COMPLETED
        return digest(state)


def test_models_are_exported_unless_revoked(operator: Operator, tmp_path: Path) -> None:
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


def test_sites_get_new_keys(operator: Operator, tmp_path: Path) -> None:
    """One replaces its key, one that had withdrawn comes back with a new one; their old keys never do."""
    old, keys = operator.site("brain"), operator.layout.keys
    for command in (("replace-key", "brain"), ("readmit", "knee")):
        with pytest.raises(AssertionError, match="used before"):
            operator("site", *command, "--public-key", str(keys / "knee.pub"))
    for site in ("brain", "knee"):
        make_key_pair(tmp_path / site)
    for _ in range(2):
        operator("site", "replace-key", "brain", "--public-key", str(tmp_path / "brain.pub"))
        operator("site", "readmit", "knee", "--public-key", str(tmp_path / "knee.pub"))
    nodes = {node.node_id: node for node in operator.local.control.list_nodes()}
    assert nodes[int(old["node_id"])].status == "unregistered"
    assert [node.name for node in nodes.values()].count("brain") == 2
    knee = operator.site("knee")
    assert (knee["status"], knee["first_round"], knee["node"]) == ("active", None, "registered")
    for name in ("brain", "brain.pub", "knee", "knee.pub"):
        (keys / name).write_bytes((tmp_path / name).read_bytes())

    operator("up", "--no-metrics")
    operator("train", "--rounds", "1")
    assert [o.outcome for o in operator.records()[-1].sites.values()] == ["ok"] * 3
    brain = operator.site("brain")
    assert brain["key"]["fingerprint"] != old["key"]["fingerprint"] and not brain["key"]["revoked"]
    assert (brain["status"], brain["node"], brain["first_round"]) == ("active", "online", 1)
    with StateDirectory.open(operator.state, url="", writable=False) as state:
        first, second = [e for e in Enrolments(state).all() if e.site == "brain"]
        assert first.reason == f"replaced by the key {second.fingerprint}" and first.unregistered_at


def test_sites_hang_lie_are_cut_off_and_killed_and_the_server_app_is_killed(
    operator: Operator, config: ConsortiumConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round ends with those that can work, and says who failed and why; a late reply and one of nonsense
    are refused and counted, and who sent them takes part in the next round; the run is taken up again with
    everybody: the killed node by `up`, as itself, and the one whose cable is mended by itself; and model and
    contributions are, bit for bit, those of the same rounds without the replies that failed.
    """  # noqa: D205 - one sentence
    knee, before = supernode("knee"), operator.records()
    copy = copied(operator, tmp_path)
    refused, expired = operator.status()["refused_replies"], expired_replies(operator)
    with cabled(operator, "abdomen") as cable:
        with little_patience(operator) as seconds:
            with misbehaving(operator, "abdomen", HANGS), misbehaving(operator, "knee", NONSENSE):
                operator("train", "--rounds", "5", "--detach")
                operator.wait(lambda _: hung(operator, "abdomen") != [])
                operator.wait(lambda _: len(operator.records()) > len(before))
                (late,) = hung(operator, "abdomen")
                late.resume()
            operator.wait(lambda _: len(operator.records()) > len(before) + 1)
            cable.cut()
            killed = operator.process(knee)
            orphans = killed.children(recursive=True)
            os.kill(killed.pid, signal.SIGKILL)
            assert cable.passed > 10_000, "the node is connected by this cable"

            failed, again = (record.sites for record in operator.records()[len(before) :][:2])
            assert failed["brain"].outcome == "ok"
            assert failed["abdomen"].outcome == "timeout"
            assert failed["abdomen"].reason == f"no answer within {seconds:g} s"
            assert failed["knee"].outcome == "refused" and "not finite" in failed["knee"].reason
            assert [outcome.outcome for outcome in again.values()] == ["ok"] * 3
            counted = operator.status()["refused_replies"]
            more = {site: counted.get(site, 0) - refused.get(site, 0) for site in failed}
            assert more == {"abdomen": 1, "brain": 0, "knee": 1}
            assert expired_replies(operator) > expired

            operator.wait(lambda _: "ok" not in outcomes(operator, "abdomen", "knee"))
            server_app = operator.server_app()
            server_app.kill()
            psutil.wait_procs([server_app], timeout=20)
        cable.heal()
        healed = time.time()
        missed = operator.records()[-1].sites
        assert missed["brain"].outcome == "ok"
        for site in ("abdomen", "knee"):
            assert missed[site].outcome in ("timeout", "failed") and missed[site].reason

        ports = ProcessTable.load(operator.layout.processes).processes[knee].ports
        node_id = operator.site("knee")["node_id"]
        others = {c.name: c.pid for c in operator.local.describe() if c.name != knee}
        operator("up", "--no-metrics")
        found = {c.name: c for c in operator.local.describe()}
        assert found[knee].pid not in (None, killed.pid) and found[knee].ports == ports
        assert {name: found[name].pid for name in others} == others
        assert not [orphan for orphan in orphans if processes.is_alive(orphan)]
        assert operator.status()["run"]["status"] == "interrupted"
        # Else it may count as offline amid the two rounds that are left.
        operator.wait(lambda _: alive_at(operator, "abdomen") > healed, 120)
        operator("resume")
        after = operator.status()
        assert after["round"] == after["target"] and after["run"]["status"] == "completed"
        assert {withdrawal["state"] for withdrawal in after["withdrawals"]} <= {"completed"}
        assert operator.site("knee")["node_id"] == node_id
        assert outcomes(operator, "brain", "abdomen", "knee") == ["ok"] * 3
    assert kept(operator.state, config) == repeated(operator, config, copy, len(before), monkeypatch)


def test_the_superlink_alone_is_killed(
    operator: Operator, config: ConsortiumConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes go on running and find it again; after `up` and `resume` the model is, bit for bit, that of
    the same rounds in one process to which nothing happened.
    """  # noqa: D205 - one sentence
    before = len(operator.records())
    copy = copied(operator, tmp_path)
    operator("train", "--rounds", "3", "--detach")
    operator.wait(lambda _: len(operator.records()) > before)
    others = {c.name: c.pid for c in operator.local.describe() if c.name != SUPERLINK}
    link = operator.process(SUPERLINK)
    link.kill()
    psutil.wait_procs([link], timeout=20)
    killed = operator.status()
    assert killed["superlink"]["health"] == "unreachable"
    assert killed["run"]["status"] == "interrupted" and killed["round"] < killed["target"]

    operator("up", "--no-metrics")
    assert {c.name: c.pid for c in operator.local.describe() if c.name != SUPERLINK} == others
    operator("resume")
    found = operator.status()
    assert found["superlink"]["health"] == "serving" and found["run"]["status"] == "completed"
    assert found["round"] == found["target"]
    records = operator.records()[before:]
    assert [o.outcome for record in records for o in record.sites.values()] == ["ok"] * 9
    assert kept(operator.state, config) == repeated(operator, config, copy, before, monkeypatch)
