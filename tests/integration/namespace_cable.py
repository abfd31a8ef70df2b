"""A site in a network namespace of its own: the cable that leads to it is the kernel's, and can be pulled."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.ports import LOCAL
from tests.integration.tcp_proxy import TcpProxy

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_AROUND = "100"
"""Number of the routing table that leads away from the namespace's own 127.0.0.1."""


class CableNotAllowedError(Exception):
    """No network namespaces can be made on the machine, or by the user."""


class IpError(Exception):
    """A command of iproute2 failed, with its own words."""


class NamespaceCable:
    """A namespace, a pair of virtual Ethernet devices, and a route by which one port of 127.0.0.1 is ours.

    While the cable is pulled packets vanish and nobody is told: TCP goes on sending them again, as between
    two machines.

    Parameters
    ----------
    server
        A port of 127.0.0.1 here that whoever is inside reaches by the same address.
    inside
        A port of 127.0.0.1 there that is to be reached from here, also while the cable is pulled.

    Raises
    ------
    CableNotAllowedError
        Where there can be no namespaces, or ``ip`` is missing: nothing is left then.
    """

    def __init__(self, server: int, inside: int) -> None:
        if shutil.which("ip") is None:
            raise CableNotAllowedError("iproute2 is not installed")
        number = os.getpid()
        self.name, self._near, far = f"cable{number}", f"cable{number}a", f"cable{number}b"
        if (Path("/run/netns") / self.name).exists():
            raise RuntimeError(f"this process has the cable {self.name} already")
        # Of the addresses for benchmarks of network devices (RFC 2544), which nothing else uses.
        block = f"198.18.{number // 64 % 256}.{{}}".format
        here, there = block(number % 64 * 4 + 1), block(number % 64 * 4 + 2)
        try:
            with _needing_permission():
                _ip("netns", "add", self.name)
                _ip("link", "add", self._near, "type", "veth", "peer", "name", far, "netns", self.name)
                _allow_loopback_addresses(self._near)
                _ip("address", "add", f"{here}/30", "dev", self._near)
                self._ip_inside("link", "set", "lo", "up")
                self._ip_inside("address", "add", f"{there}/30", "dev", far)
                self._ip_inside("link", "set", far, "up")
                # Else whoever looks for the other end in vain is told that there is no way.
                self._ip_inside(*_neighbour(here, _hardware(self._near), far))
                with _within(self.name):
                    self._far = _neighbour(there, _hardware(far), self._near)
                self.heal()
                with _within(self.name):
                    _allow_loopback_addresses(far)
                # What is local is asked first of all: one port must come before it.
                self._ip_inside("rule", "add", "preference", "10", "lookup", "local")
                self._ip_inside("rule", "delete", "preference", "0")
                port = "preference", "5", "ipproto", "tcp", "dport", str(server)
                self._ip_inside("rule", "add", *port, "lookup", _AROUND)
                self._ip_inside("route", "add", "default", "via", here, "src", there, "table", _AROUND)
                # Whatever else may be in the way, such as a filter of packets.
                with _within(self.name):
                    socket.create_connection((LOCAL, server), 5).close()
            self._window = TcpProxy(LOCAL, inside, own=inside, connect=self._connect)
        except BaseException:
            self._remove()
            raise

    @property
    def passed(self) -> int:
        """Bytes that went through the cable, both ways."""
        counted = Path("/sys/class/net") / self._near / "statistics"
        return sum(int((counted / f"{way}_bytes").read_text()) for way in ("rx", "tx"))

    def cut(self) -> None:
        """Pull the cable."""
        _ip("link", "set", self._near, "down")

    def heal(self) -> None:
        """Plug it in."""
        _ip("link", "set", self._near, "up")
        _ip(*self._far)

    def close(self) -> None:
        """Remove the namespace; whoever is inside is cut off for good."""
        self._window.close()
        self._remove()

    def inside(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """The command by which ``command`` runs there."""
        return ("ip", "netns", "exec", self.name, *command)

    def _connect(self, address: tuple[str, int]) -> socket.socket:
        with _within(self.name):
            return socket.create_connection(address)

    def _ip_inside(self, *arguments: str) -> None:
        _ip("-netns", self.name, *arguments)

    def _remove(self) -> None:
        for command in (("link", "delete", self._near), ("netns", "delete", self.name)):
            # Of one that was not made whole, not all is there.
            with suppress(IpError):
                _ip(*command)


@contextmanager
def _needing_permission() -> Iterator[None]:
    try:
        yield
    except (OSError, IpError) as error:
        raise CableNotAllowedError(f"no network namespace with a cable can be made here: {error}") from error


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise IpError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _hardware(device: str) -> str:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
        opened.bind((device, 0))
        return opened.getsockname()[4].hex(":")


def _neighbour(address: str, hardware: str, device: str) -> tuple[str, ...]:
    return ("neighbour", "replace", address, "lladdr", hardware, "dev", device, "nud", "permanent")


def _allow_loopback_addresses(device: str) -> None:
    Path(f"/proc/sys/net/ipv4/conf/{device}/route_localnet").write_text("1")


@contextmanager
def _within(name: str) -> Iterator[None]:
    """Have this thread in the namespace: sockets that it makes stay there."""
    with Path("/proc/thread-self/ns/net").open() as before, Path(f"/run/netns/{name}").open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(before.fileno())


def _enter(namespace: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(namespace, _NEW_NETWORK) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
