"""What goes wrong at the sites of a real consortium: cut off, hung, slow, and hostile."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from deploy import commands, processes
from deploy.layout import SUPERLINK, supernode
from deploy.ports import LOCAL
from deploy.processes import ProcessTable
from reconsent.config import dump_consortium, load_consortium
from tests.integration.operator_at_work import Operator
from tests.integration.tcp_proxy import TcpProxy

HOSTILE = """
import torch, client.work
from client.node.own_code import main

honest = client.work._arrays

def nonsense(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    return honest(model)

client.work._arrays = nonsense
main()
"""


def outcomes(operator: Operator, *sites: str) -> list[str]:
    """What became of the sites' replies in the last round."""
    last = operator.records()[-1].sites
    return [last[site].outcome if site in last else "not asked" for site in sites]


@contextmanager
def little_patience(operator: Operator, seconds: float) -> Iterator[None]:
    """The runs that are begun meanwhile wait for a site no longer than this."""
    file = operator.layout.consortium
    usual = file.read_text(encoding="utf-8")
    config = load_consortium(file)
    training = config.training.model_copy(update={"timeout_seconds": seconds})
    file.write_text(dump_consortium(config.model_copy(update={"training": training})), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(usual, encoding="utf-8")


@contextmanager
def cabled(operator: Operator, site: str) -> Iterator[TcpProxy]:
    """The site's node is connected by a cable that can be cut."""
    name, table = supernode(site), ProcessTable.load(operator.layout.processes)
    cable = TcpProxy(LOCAL, table.processes[SUPERLINK].ports[commands.FLEET])
    processes.stop([operator.process(name)])
    ports = table.processes[name].ports
    command = commands.supernode_command(operator.layout, site, ports, cable.address, insecure=False)
    environment = commands.supernode_environment(operator.layout, site)
    record = processes.start(name, command, environment, operator.layout.log(name))
    # As `up` would have started it, so that it is left alone.
    usual = table.processes[name].command
    table.processes[name] = record.model_copy(update={"ports": ports, "command": usual})
    table.save(operator.layout.processes)
    try:
        operator.wait(lambda _: online(operator, site), 120)
        yield cable
    finally:
        cable.close()
        processes.stop([operator.process(name)])
    operator("up", "--no-metrics")


def online(operator: Operator, site: str) -> bool:
    """Whether the SuperLink has heard of the site's node."""
    return any(node.name == site and node.status == "online" for node in operator.local.control.list_nodes())


@contextmanager
def hostile(operator: Operator, site: str) -> Iterator[None]:
    """Whatever the site's node is asked to train, it answers with a model of nothing but NaN."""
    program = operator.layout.programs(site) / "flwr-clientapp"
    usual = program.read_text(encoding="utf-8")
    program.write_text(
        f'#!/bin/sh\nexec {shlex.join([sys.executable, "-c", HOSTILE])} "$@"\n', encoding="utf-8"
    )
    try:
        yield
    finally:
        program.write_text(usual, encoding="utf-8")


@contextmanager
def halted(operator: Operator, site: str) -> Iterator[None]:
    """The site's node, and whatever it has started, stands still."""
    node = operator.process(supernode(site))
    family = [node, *node.children(recursive=True)]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
