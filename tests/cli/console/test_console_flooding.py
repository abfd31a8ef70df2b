"""What somebody can do to the console who is not logged in."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from itertools import count
from urllib.parse import urlsplit

import pytest

from cli.console import limits
from cli.console.guard import LARGEST_LOGIN
from cli.console.limits import PER_ACCOUNT, PER_ADDRESS, WINDOW_SECONDS, LoginLimit, network_of
from cli.console.serving import MOST_CONNECTIONS
from tests.cli.console.console_at_work import Visitor


def status_without_body(url: str, path: str, *headers: str) -> int:
    """The answer to a form whose headers are sent and whose body never comes."""
    place = urlsplit(url)
    with socket.create_connection((str(place.hostname), place.port or 0), timeout=10) as line:
        words = (f"POST {path} HTTP/1.1", f"Host: {place.netloc}", *headers, "", "")
        line.sendall("\r\n".join(words).encode())
        return int(line.recv(64).split()[1])


def test_forms_of_strangers_are_refused_unread(officer: Visitor) -> None:
    """Without a session, or from another origin, the answer comes before the form: nothing is taken in."""
    url = str(officer.client.base_url)
    form = ("Content-Type: multipart/form-data; boundary=x", f"Content-Length: {5 * 2**20}")
    assert status_without_body(url, "/certificates/verify", *form) == 401
    (cookie,) = [c for c in officer.client.cookies.jar if c.name == "reconsent"]
    known = (*form, f"Cookie: reconsent={cookie.value}")
    with pytest.raises(TimeoutError):
        status_without_body(url, "/certificates/verify", *known)
    assert status_without_body(url, "/certificates/verify", *known, "Origin: https://evil.example") == 403


def test_the_log_in_reads_no_more_than_its_form_needs(console: str) -> None:
    """By the declared length, or as it comes; a form of the right size is read."""
    visitor = Visitor(console)
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert status_without_body(console, "/login", f"Content-Length: {LARGEST_LOGIN + 1}") == 413
    pieces = (b"name=" + b"x" * 1024 for _ in range(LARGEST_LOGIN // 1024))
    assert visitor.client.post("/login", content=pieces, headers=kind).status_code == 413
    small = b"name=" + b"x" * (LARGEST_LOGIN - 5)
    assert visitor.client.post("/login", content=small, headers=kind).status_code == 403
    visitor.log_in("viewer")


def test_a_crowd_is_told_to_come_later(console: str) -> None:
    """Idle connections count; when they have gone, the console answers again."""
    place = urlsplit(console)
    with ExitStack() as crowd:
        for _ in range(MOST_CONNECTIONS):
            crowd.enter_context(socket.create_connection((str(place.hostname), place.port or 0)))
        assert Visitor(console).client.get("/login").status_code == 503
    assert any(Visitor(console).client.get("/login").status_code == 200 for _ in range(50))


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    """Whoever has 2**64 addresses has as many attempts as whoever has one; other networks have their own."""
    limit, names = LoginLimit(lambda: 1000.0), (f"user{number}" for number in count())
    for host in range(PER_ADDRESS):
        assert limit.begin(next(names), f"2001:db8:0:1::{host:x}") == 0
    assert limit.begin(next(names), "2001:db8:0:1:ffff::") == WINDOW_SECONDS
    assert limit.begin(next(names), "2001:db8:0:2::") == 0
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("") == ""


def test_a_flood_of_names_does_not_open_a_closed_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is at its limit is remembered, however many come after; others are forgotten, oldest first."""
    monkeypatch.setattr(limits, "MOST_KEYS", 10)
    now = [1000.0]
    limit = LoginLimit(lambda: now[0])
    for number in range(PER_ACCOUNT):
        assert limit.begin("officer", f"192.0.2.{number}") == 0
    for number in range(50):
        assert limit.begin(f"user{number}", f"198.51.100.{number}") == 0
    assert limit.begin("officer", "203.0.113.1") == WINDOW_SECONDS
    assert limit.failures("user0") == 0
    assert limit.failures("user49") == 1
    now[0] += WINDOW_SECONDS
    assert limit.begin("officer", "203.0.113.1") == 0
