"""Free ports, and the health protocol."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health as servicer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from deploy.health import status
from deploy.ports import find_ports, is_free
from deploy.probe import main as probe
from reconsent.exposition import MetricsServer


def test_free_preferred_ports_are_kept() -> None:
    """A port that is still free is given again; one that is taken is replaced by another."""
    first, second = find_ports([None, None])
    with socket.socket() as other:
        other.bind(("127.0.0.1", second))
        other.listen()
        assert not is_free(second)
        again = find_ports([first, second])
        assert again[0] == first and again[1] != second
    assert find_ports([first, second]) == [first, second]


def test_ports_are_distinct() -> None:
    """Many at once are all different, also if two prefer the same, and none is one that is spoken for."""
    (port,) = find_ports([None])
    found = find_ports([port, port, *[None] * 50], taken={port})
    assert len(set(found)) == 52
    assert port not in found


def test_health_of_a_real_server() -> None:
    """Serving, not serving and not there at all are told apart."""
    server = grpc.server(ThreadPoolExecutor(1))
    answers = servicer.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(answers, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert status(f"127.0.0.1:{port}") == "serving"
        answers.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert status(f"127.0.0.1:{port}") == "not serving"
    finally:
        server.stop(None).wait()
    assert status(f"127.0.0.1:{port}", timeout=0.5) == "unreachable"


def test_probe_of_a_real_exporter() -> None:
    """An exporter that answers, one that is not ready, and one that is gone are told apart by exit status."""
    with MetricsServer(CollectorRegistry(), "127.0.0.1:0", unready=lambda: "no state yet") as server:
        url = f"http://127.0.0.1:{server.port}"
        assert probe([f"{url}/healthz"]) == 0
        assert probe([f"{url}/readyz"]) == 1
    assert probe([f"{url}/healthz"]) == 1
