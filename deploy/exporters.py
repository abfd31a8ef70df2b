"""The exporters of a local consortium: one at the server, one a site, and where Prometheus finds them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

import httpx

from client.policy import policy_path
from deploy.certificates import AUTHORITY
from deploy.flower_control import executable, local_environment
from deploy.layout import Layout
from deploy.ports import LOCAL
from deploy.processes import MARK, ProcessRecord
from reconsent.files import write_atomically

METRICS = "metrics"
"""Purpose of an exporter's port, and name of the server's exporter."""

EXPORTER_PORTS = (METRICS,)

SERVER_PORT = 9464
"""Of the server's exporter, if it is free: the port that the examples of `deploy/prometheus` name."""


def exporter(site: str) -> str:
    """Name of the process that is the exporter of ``site``."""
    return f"{METRICS}-{site}"


def exporter_names(sites: Iterable[str]) -> list[str]:
    """The server's exporter, and that of each site."""
    return [METRICS, *(exporter(site) for site in sites)]


def is_exporter(name: str) -> bool:
    """Whether a process of this name is an exporter."""
    return name == METRICS or name.startswith(exporter(""))


def exporter_command(
    layout: Layout,
    name: str,
    ports: Mapping[str, int],
    *,
    insecure: bool,
    environment: Mapping[str, str] = os.environ,
) -> tuple[str, ...]:
    """Program and arguments of an exporter; a site's reads policy and certificate where its node does."""
    address = ("--address", f"{LOCAL}:{ports[METRICS]}")
    program = (executable("reconsent"), "metrics")
    if name == METRICS:
        return (*program, "serve", "--state", str(layout.state), *address)
    site = name.removeprefix(exporter(""))
    policy = policy_path({}, environment)
    return (
        *(*program, "site", "--name", site, "--log", str(layout.site_log(site))),
        *(() if policy is None else ("--policy", str(policy))),
        *(() if insecure else ("--ca", str(layout.tls / AUTHORITY))),
        *address,
    )


def exporter_environment(layout: Layout) -> dict[str, str]:
    """What an exporter finds in its environment."""
    return local_environment({MARK: str(layout.root), "OMP_NUM_THREADS": "1"})


def answers(record: ProcessRecord) -> bool:
    """Whether an exporter answers."""
    try:
        # A proxy of the environment must not come between processes of one machine.
        url = f"http://{LOCAL}:{record.ports[METRICS]}/healthz"
        return httpx.get(url, timeout=2.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def write_targets(layout: Layout, records: Mapping[str, ProcessRecord]) -> None:
    """Write where the exporters are, as a file that Prometheus' ``file_sd_configs`` reads."""
    targets = []
    for name, record in records.items():
        if is_exporter(name) and record.pid is not None:
            site = name.removeprefix(exporter("")) if name != METRICS else ""
            labels = {"component": "site", "site": site} if site else {"component": "server"}
            targets.append({"targets": [f"{LOCAL}:{record.ports[METRICS]}"], "labels": labels})
    write_atomically(layout.metrics_targets, json.dumps(targets, indent=2).encode() + b"\n")
