"""Power fails everywhere, a cable is cut, a node is killed: what of the work is lost, and what is said."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from client.app import app
from deploy import commands, processes
from deploy.layout import SUPERLINK, Layout, supernode
from deploy.local_consortium import LocalConsortium
from deploy.ports import LOCAL
from deploy.processes import ProcessTable
from reconsent.config import ConsortiumConfig, dump_consortium, load_consortium
from reconsent.environment import CONSORTIUM_VARIABLE, PHANTOMS_VARIABLE
from server.bookkeeping import MAIN
from server.coordinator import Coordinator
from server.persistence import ModelRegistry, RoundLog, RoundRecord, StateDirectory
from server.service import Service, Task
from strategies.local_grid import LocalGrid
from tests.integration.operator_at_work import Operator
from tests.integration.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = 40.0
"""Seconds a site has for a round."""


@pytest.fixture(scope="module")
def config() -> ConsortiumConfig:
    """Three hospitals, none of which is waited for long; nothing but training rounds."""
    tiny = load_consortium("tiny")
    training = tiny.training.model_copy(
        update={"local_steps": 1, "evaluate_every": 0, "join_seconds": 300.0, "timeout_seconds": PATIENCE}
    )
    return tiny.model_copy(update={"withdrawals": (), "training": training})


@pytest.fixture(scope="module")
def operator(config: ConsortiumConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """A consortium that is up."""
    directory = tmp_path_factory.mktemp("cut")
    (directory / "consortium.toml").write_text(dump_consortium(config))
    typed = Operator(directory / "state")
    try:
        typed("up", str(directory / "consortium.toml"))
        yield typed
    finally:
        typed("down")
        assert processes.strays(str(Layout(typed.state).root)) == []


def records(operator: Operator) -> list[RoundRecord]:
    """The rounds so far."""
    with StateDirectory.open(operator.state, url="", writable=False) as state:
        return list(RoundLog(state).all(MAIN))


def digest(state: StateDirectory) -> str:
    """Of the newest model."""
    latest = ModelRegistry(state).latest(MAIN)
    assert latest is not None
    return latest.digest


def test_everything_is_killed_at_once(
    operator: Operator, config: ConsortiumConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `up` and `resume` the model is, bit for bit, that of a run to which nothing happened."""
    operator("train", "--rounds", "3", "--detach")
    operator.wait(lambda found: found["round"] >= 1)
    everything = [psutil.Process(c.pid) for c in LocalConsortium(operator.state).describe() if c.pid]
    everything += [child for parent in everything for child in parent.children(recursive=True)]
    for process in everything:
        process.kill()
    psutil.wait_procs(everything, timeout=20)
    assert len(records(operator)) < 3
    operator("up")
    operator("resume")
    assert operator.status()["round"] == 3
    assert all(o.outcome == "ok" for record in records(operator) for o in record.sites.values())

    monkeypatch.setenv(CONSORTIUM_VARIABLE, str(Layout(operator.state).consortium))
    monkeypatch.setenv(PHANTOMS_VARIABLE, str(Layout(operator.state).sites))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    nodes = LocalGrid(app, {n: {"site": site.name} for n, site in enumerate(config.sites, start=1)})
    try:
        with StateDirectory.open(tmp_path / "state", url="") as state:
            Service(Coordinator(nodes, config, state, simulated=False)).carry_out(Task("train", 3))
            undisturbed = digest(state)
    finally:
        torch.set_num_threads(threads)
    with StateDirectory.open(operator.state, url="", writable=False) as state:
        assert digest(state) == undisturbed


def test_a_node_is_killed_in_the_middle_of_a_round(operator: Operator) -> None:
    """The round ends with the others and says why; started again, the node takes part again."""
    before = len(records(operator))
    operator("train", "--rounds", "3", "--detach")
    operator.wait(lambda found: found["round"] > before)
    knee = {c.name: c for c in LocalConsortium(operator.state).describe()}[supernode("knee")]
    assert knee.pid is not None
    os.kill(knee.pid, signal.SIGKILL)
    operator.wait(lambda found: found["run"]["status"] != "running")
    after = records(operator)[before:]
    assert len(after) == 3
    failed = [record.sites["knee"] for record in after if record.sites.get("knee", None)][-1]
    assert failed.outcome in ("timeout", "failed") and failed.reason
    assert all(record.sites[site].outcome == "ok" for record in after for site in ("brain", "abdomen"))
    operator("up")
    operator("train", "--rounds", "1")
    assert records(operator)[-1].sites["knee"].outcome == "ok"


def test_a_cable_is_cut_and_mended(operator: Operator) -> None:
    """The round ends without the site and says why; once the cable is mended, the site is back by itself."""
    layout = Layout(operator.state)
    table = ProcessTable.load(layout.processes)
    name = supernode("knee")
    proxy = TcpProxy(LOCAL, table.processes[SUPERLINK].ports[commands.FLEET])
    own = {c.name: c for c in LocalConsortium(operator.state).describe()}[name]
    processes.stop([psutil.Process(own.pid)])
    ports = table.processes[name].ports
    command = commands.supernode_command(layout, "knee", ports, proxy.address, insecure=False)
    processes.start(name, command, commands.supernode_environment(layout, "knee"), layout.log(name))
    try:
        operator.wait(lambda _: online(operator), 120)
        before = len(records(operator))
        operator("train", "--rounds", "6", "--detach")
        operator.wait(lambda found: found["round"] > before)
        assert proxy.passed > 10_000, "the node is connected by this cable"
        proxy.cut()
        operator.wait(lambda found: found["round"] > before + 1)
        proxy.heal()
        operator.wait(lambda found: found["run"]["status"] != "running")
    finally:
        proxy.close()
    after = records(operator)[before:]
    told = [record.sites["knee"] for record in after if "knee" in record.sites]
    missed = [outcome for outcome in told if outcome.outcome != "ok"]
    assert missed and all(o.outcome in ("timeout", "failed") and o.reason for o in missed)
    assert after[-1].sites["knee"].outcome == "ok", [o.outcome for o in told]
    assert all(record.sites[site].outcome == "ok" for record in after for site in ("brain", "abdomen"))


def online(operator: Operator) -> bool:
    """Whether the SuperLink has heard of knee's node."""
    nodes = LocalConsortium(operator.state).control.list_nodes()
    return any(node.name == "knee" and node.status == "online" for node in nodes)
