"""A consortium of real processes: TLS, registered keys, a run, refusals, crashes, and nothing left behind."""

from __future__ import annotations

import datetime as dt
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from deploy import commands, processes
from deploy.certificates import AUTHORITY, make_certificates
from deploy.component import Component
from deploy.flower_control import FlowerControl
from deploy.keeper import KEEPER
from deploy.keys import node_key
from deploy.layout import SUPERLINK, supernode
from deploy.local_consortium import LocalConsortium
from deploy.ports import find_ports
from deploy.processes import ProcessTable
from reconsent.config import ConsortiumConfig, load_consortium
from reconsent.errors import DeployError
from server.persistence import Enrolments, StateDirectory
from tests.integration.operator_at_work import Operator

NO_CONNECTION = "Exit Code: 305"
"""Flower's exit for "no connection to the SuperLink"; the process may linger a while after it."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def local(operator: Operator) -> LocalConsortium:
    """A consortium that is up."""
    return operator.local


def pids(components: list[Component]) -> dict[str, int | None]:
    return {component.name: component.pid for component in components}


def environment_of(pid: int | None) -> dict[str, str]:
    return psutil.Process(pid).environ()


def until_logged(log: Path, text: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while text not in log.read_text():
        assert time.monotonic() < deadline, f"{log.name}: {log.read_text()}"
        time.sleep(0.1)


def start_node(
    local: LocalConsortium, fleet: str, key: Path, *security: str, log: Path
) -> subprocess.Popen[bytes]:
    """A SuperNode of our own making, that gives up after one more attempt."""
    runtime, health = find_ports([None, None])
    ports = {"runtime": runtime, "health": health}
    command = list(commands.supernode_command(local.layout, key.name, ports, fleet, insecure=True))
    command.remove("--insecure")
    # Without the mark: these are not the consortium's own, and it must leave them alone.
    environment = commands.supernode_environment(local.layout, key.name)
    del environment[processes.MARK]
    # Not a pipe: the node's own child would hold it open.
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, *security, "--max-retries", "1"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def test_everything_runs_and_is_registered(local: LocalConsortium, config: ConsortiumConfig) -> None:
    """All processes serve; each site's node is on line under its own key; secrets stay private."""
    components = local.describe()
    assert {c.name: c.status for c in components} == {
        SUPERLINK: "running",
        **{supernode(site.name): "running" for site in config.sites},
        KEEPER: "running",
    }
    keeper = psutil.Process(pids(components)[KEEPER])
    assert keeper.cmdline()[-6:] == [
        *("purge", "--every", "24", "--not-at-once"),
        *("--state", str(local.layout.state)),
    ]
    nodes = {node.node_id: node for node in local.control.list_nodes()}
    with StateDirectory.open(local.layout.state, writable=False) as state:
        for site in config.sites:
            enrolment = Enrolments(state).valid(site.name)
            assert enrolment is not None
            assert enrolment.node_id is not None
            node = nodes[enrolment.node_id]
            assert (node.name, node.status) == (site.name, "online")
            assert node.fingerprint == enrolment.fingerprint
            assert local.layout.private_key(site.name).stat().st_mode & 0o777 == 0o600
    for directory in (local.layout.root, local.layout.tls, local.layout.keys, local.layout.logs):
        assert directory.stat().st_mode & 0o777 == 0o700
    of_node = environment_of(pids(components)[supernode("brain")])
    assert not {"RECONSENT_STATE", "RECONSENT_DATABASE_URL"} & set(of_node)
    assert environment_of(pids(components)[SUPERLINK])["RECONSENT_STATE"] == str(local.layout.state)


def test_up_again_changes_nothing(local: LocalConsortium, config: ConsortiumConfig) -> None:
    """The same processes go on, and the keys are registered once."""
    before, known = pids(local.describe()), local.control.list_nodes()
    assert pids(local.up(config)) == before
    assert [node.fingerprint for node in local.control.list_nodes()] == [node.fingerprint for node in known]


def test_another_consortium_is_refused(local: LocalConsortium, config: ConsortiumConfig) -> None:
    """While one runs, neither another one nor the same one without TLS is started over it."""
    with pytest.raises(DeployError, match="Another consortium runs"):
        local.up(config.model_copy(update={"seed": 1}))
    with pytest.raises(DeployError, match="with TLS"):
        local.up(config, insecure=True)
    assert local.config() == config


def test_uninvited_nodes_are_refused(local: LocalConsortium, tmp_path: Path) -> None:
    """A key that was not registered, a foreign authority, and plain text: none of them gets in."""
    stranger = node_key(tmp_path / "stranger")
    make_certificates(tmp_path / "foreign")
    known = {node.fingerprint for node in local.control.list_nodes()}
    key = ("--auth-supernode-private-key", str(stranger.private))
    ours = ("--root-certificates", str(local.layout.tls / AUTHORITY))
    theirs = ("--root-certificates", str(tmp_path / "foreign" / AUTHORITY))
    attempts = {
        "unregistered": (*ours, *key),
        "foreign": (*theirs, *key),
        "keyless": ours,
        "plain": ("--insecure",),
    }
    link = ProcessTable.load(local.layout.processes).processes[SUPERLINK]
    fleet = commands.address(link.ports, commands.FLEET)
    started = {
        name: start_node(local, fleet, stranger.private, *security, log=tmp_path / f"{name}.log")
        for name, security in attempts.items()
    }
    try:
        for name in attempts:
            until_logged(tmp_path / f"{name}.log", NO_CONNECTION)
    finally:
        processes.stop([psutil.Process(node.pid) for node in started.values() if node.poll() is None])
        for node in started.values():
            node.wait(30)
    for name in attempts:
        assert "SuperNode ID" not in (tmp_path / f"{name}.log").read_text(), name
    assert {node.fingerprint for node in local.control.list_nodes()} == known


def test_commands_need_the_right_authority(local: LocalConsortium, tmp_path: Path) -> None:
    """Flower's commands refuse a SuperLink whose certificate another authority signed, and plain text."""
    make_certificates(tmp_path / "foreign")
    link = ProcessTable.load(local.layout.processes).processes[SUPERLINK]
    for authority in (tmp_path / "foreign" / AUTHORITY, None):
        control = FlowerControl(tmp_path / "home")
        control.connect(commands.address(link.ports, commands.API), authority)
        with pytest.raises(DeployError):
            control.list_nodes()
    control.connect(commands.address(link.ports, commands.API), tmp_path / "foreign" / AUTHORITY)
    with pytest.raises(DeployError, match="asked for its runs"):
        control.list_runs()


def test_unregistered_node_is_kept_out_for_good(local: LocalConsortium, config: ConsortiumConfig) -> None:
    """Once its key is unregistered, `up` names the site and the reason, and starts all others."""
    nodes = {node.name: node.node_id for node in local.control.list_nodes() if node.status == "online"}
    local.control.unregister_node(nodes["abdomen"])
    after = {component.name: component for component in local.up(config)}
    assert after[supernode("abdomen")].status == "kept out"
    assert "unregistered" in after[supernode("abdomen")].remark
    assert after[supernode("abdomen")].pid is None
    assert after[supernode("brain")].status == "running"


def test_down_leaves_nothing(local: LocalConsortium) -> None:
    """Everything ends, the SuperLink last; the second time there is nothing to stop."""
    stopped = local.down()
    assert set(stopped) == {supernode("brain"), supernode("knee"), KEEPER, SUPERLINK}
    assert stopped[-1] == SUPERLINK
    assert processes.strays(str(local.layout.root)) == []
    assert local.down() == []
    assert {component.status for component in local.describe()} == {"stopped"}
    with pytest.raises(DeployError, match="reconsent up"):
        local.control.list_nodes()


def test_expired_server_certificate_is_refused(tmp_path: Path) -> None:
    """`up` does not start with one; and no command and no node talks to a SuperLink that uses one."""
    local = LocalConsortium(tmp_path / "state")
    local.layout.make()
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=30)
    make_certificates(local.layout.tls, days=29, now=past)
    with pytest.raises(DeployError, match="expired on"):
        local.up(load_consortium("tiny"))
    assert processes.strays(str(local.layout.root)) == []
    ports = dict(zip(commands.SUPERLINK_PORTS, find_ports([None] * 3), strict=True))
    command = commands.superlink_command(local.layout, ports, insecure=False)
    environment = commands.superlink_environment(local.layout)
    log = local.layout.log(SUPERLINK)
    processes.start(SUPERLINK, command, environment, log)
    key = node_key(tmp_path / "site")
    security = ("--root-certificates", str(local.layout.tls / AUTHORITY))
    security += ("--auth-supernode-private-key", str(key.private))
    node = None
    try:
        until_logged(log, "Uvicorn running")
        fleet, of_node = commands.address(ports, commands.FLEET), tmp_path / "node.log"
        node = start_node(local, fleet, key.private, *security, log=of_node)
        local.control.connect(commands.address(ports, commands.API), local.layout.tls / AUTHORITY)
        with pytest.raises(DeployError, match="expired"):
            local.control.list_nodes()
        until_logged(of_node, NO_CONNECTION)
        assert "SuperNode ID" not in of_node.read_text()
    finally:
        if node is not None:
            processes.stop([psutil.Process(node.pid)] if node.poll() is None else [])
            node.wait(30)
        processes.stop(processes.strays(str(local.layout.root)))


def test_failed_start_leaves_nothing(config: ConsortiumConfig, tmp_path: Path) -> None:
    """If a process does not start, the error has its name and its last words, and nothing goes on running."""
    local = LocalConsortium(tmp_path / "state")
    local.layout.make()
    local.layout.database(insecure=False).mkdir()
    with pytest.raises(DeployError, match="superlink ended at once") as caught:
        local.up(config)
    assert "unable to open database file" in caught.value.problem
    assert processes.strays(str(local.layout.root)) == []
    assert pids(local.describe()) == dict.fromkeys(pids(local.describe()))
