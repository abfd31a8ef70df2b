"""What goes wrong at the sites of a real consortium: cut off, hung, hostile; and who waits for whom."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import psutil
from flwr.common.constant import HEARTBEAT_PATIENCE
from flwr.proto.control_pb2 import ListNodesRequest  # type: ignore[attr-defined]

from deploy import commands, processes
from deploy.layout import SUPERLINK, supernode
from deploy.ports import LOCAL
from deploy.processes import ProcessTable
from reconsent.config import dump_consortium, load_consortium
from tests.integration import misbehaving_app
from tests.integration.namespace_cable import CableNotAllowedError, NamespaceCable
from tests.integration.operator_at_work import Operator
from tests.integration.tcp_proxy import TcpProxy

LEAST_PATIENCE, MOST_PATIENCE = 20.0, 50.0
"""Flower itself answers for an app that has not said anything for a minute: longer it may not be."""


def expired_replies(operator: Operator) -> int:
    """How many replies the SuperLink refused for being late, since it was started."""
    return operator.layout.log(SUPERLINK).read_text(encoding="utf-8").count("Message TTL has expired")


def outcomes(operator: Operator, *sites: str) -> list[str]:
    """What became of the sites' replies in the last round."""
    last = operator.records()[-1].sites
    return [last[site].outcome if site in last else "not asked" for site in sites]


@contextmanager
def little_patience(operator: Operator) -> Iterator[float]:
    """The runs that are begun meanwhile wait for a site no longer than this many seconds.

    A site that can work surely does within them, by what the last rounds have taken on this machine.
    """
    longest = max((record.seconds for record in operator.records()[-3:]), default=MOST_PATIENCE)
    seconds = round(min(max(LEAST_PATIENCE, 3 * longest), MOST_PATIENCE))
    file = operator.layout.consortium
    usual = file.read_text(encoding="utf-8")
    config = load_consortium(file)
    training = config.training.model_copy(update={"timeout_seconds": seconds})
    file.write_text(dump_consortium(config.model_copy(update={"training": training})), encoding="utf-8")
    try:
        yield seconds
    finally:
        file.write_text(usual, encoding="utf-8")


@contextmanager
def misbehaving(operator: Operator, site: str, fault: str) -> Iterator[None]:
    """In the next training that the site's node is asked for, its app hangs or sends nonsense."""
    program = operator.layout.programs(site) / "flwr-clientapp"
    usual = program.with_suffix(".usual")
    program.rename(usual)
    command = shlex.join([sys.executable, str(misbehaving_app.__file__), fault, str(program)])
    # The first message asks who the site is; answering it readies the installed app for what comes later.
    first = f'mkdir "{program}.met" 2>/dev/null && exec "{usual}" "$@"'
    program.write_text(f'#!/bin/sh\n{first}\nexec {command} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            usual.replace(program)
        with suppress(FileNotFoundError):
            program.with_suffix(".met").rmdir()


def kill_all(operator: Operator) -> None:
    """Every process of the consortium is killed, as by a power cut."""
    parents = [psutil.Process(found.pid) for found in operator.local.describe() if found.pid]
    everything = list(parents)
    for parent in parents:
        with suppress(psutil.NoSuchProcess):
            everything += parent.children(recursive=True)
    for process in everything:
        # Apps of nodes come and go by themselves.
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(everything, timeout=20)


def hung(operator: Operator, site: str) -> list[psutil.Process]:
    """The apps of the site's node that stand still."""
    found = []
    for process in operator.process(supernode(site)).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_STOPPED:
                found.append(process)
    return found


@contextmanager
def cabled(operator: Operator, site: str) -> Iterator[TcpProxy | NamespaceCable]:
    """The site's node is connected by a cable that can be cut.

    The kernel's between two network namespaces, where the machine allows them; or one of ours.
    """
    name, table = supernode(site), ProcessTable.load(operator.layout.processes)
    fleet, ports = table.processes[SUPERLINK].ports[commands.FLEET], table.processes[name].ports
    processes.stop([operator.process(name)])
    cable: TcpProxy | NamespaceCable
    try:
        cable = NamespaceCable(fleet, ports[commands.HEALTH])
    except CableNotAllowedError:
        cable = TcpProxy(LOCAL, fleet)
        address, around = cable.address, tuple[str, ...]
    else:
        address, around = f"{LOCAL}:{fleet}", cable.inside
    with closing(cable):
        command = around(commands.supernode_command(operator.layout, site, ports, address, insecure=False))
        with _connected(operator, site, command):
            yield cable
    operator("up", "--no-metrics")


@contextmanager
def _connected(operator: Operator, site: str, command: tuple[str, ...]) -> Iterator[None]:
    """The site's node, started by another command than `up` would have."""
    name, table = supernode(site), ProcessTable.load(operator.layout.processes)
    usual, ports = table.processes[name].command, table.processes[name].ports
    environment = commands.supernode_environment(operator.layout, site)
    record = processes.start(name, command, environment, operator.layout.log(name))
    # As `up` would have started it, so that it is left alone.
    table.processes[name] = record.model_copy(update={"ports": ports, "command": usual})
    table.save(operator.layout.processes)
    try:
        operator.wait(lambda _: online(operator, site), 120)
        yield
    finally:
        processes.stop([operator.process(name)])


def alive_at(operator: Operator, site: str) -> float:
    """When the SuperLink last heard that the site's node is alive: seconds since 1970."""
    with operator.local.control._asking("asked for its nodes") as client:
        found = next(n for n in client.ListNodes(ListNodesRequest()).nodes_info if n.name == site)
    return float(found.online_until - HEARTBEAT_PATIENCE * found.heartbeat_interval)


def online(operator: Operator, site: str) -> bool:
    """Whether the SuperLink has heard of the site's node."""
    return any(node.name == site and node.status == "online" for node in operator.local.control.list_nodes())
