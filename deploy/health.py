"""The gRPC health protocol, which SuperLink and SuperNodes speak."""

from __future__ import annotations

from typing import Literal

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Health = Literal["serving", "not serving", "unreachable"]


def status(address: str, *, timeout: float = 2.0) -> Health:
    """Ask a health server how its process is.

    Parameters
    ----------
    address
        Host and port; without TLS, as Flower's health servers are.
    timeout
        Seconds to wait for an answer.
    """
    # A proxy of the environment must not come between processes of one machine.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout
            )
        except grpc.RpcError:
            return "unreachable"
    return "serving" if reply.status == health_pb2.HealthCheckResponse.SERVING else "not serving"
