"""What goes wrong at the sites of a real consortium: a cable that is cut, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deploy import commands, processes
from deploy.layout import SUPERLINK, supernode
from deploy.ports import LOCAL
from deploy.processes import ProcessTable
from reconsent.config import dump_consortium, load_consortium
from tests.integration.operator_at_work import Operator
from tests.integration.tcp_proxy import TcpProxy


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
