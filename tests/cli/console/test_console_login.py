"""Who gets in, who stays in, and who may do what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.console.limits import PER_ACCOUNT, PER_ADDRESS, WINDOW_SECONDS, LoginLimit
from cli.console.passwords import hash_password, is_outdated, is_password
from cli.console.sessions import IDLE_SECONDS, LONGEST_SECONDS, Sessions
from reconsent.errors import ConfigError
from server.persistence import ConsoleUsers, StateDirectory
from tests.cli.console.console_at_work import (
    PASSWORD,
    Visitor,
    entries,
    hidden_fields,
    serving,
    start,
    text_of,
)

PAGES = ("/", "/withdrawals", "/certificates", "/models", "/quality", "/ledger", "/keys")
FORMS = ("/withdrawals/new", "/withdrawals", "/ledger/verify", "/certificates/verify", "/logout")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def test_nobody_sees_or_does_anything_without_logging_in(console: str) -> None:
    """Every page leads to the log-in, every form is refused, and unknown pages tell nothing."""
    visitor = Visitor(console)
    for page in (*PAGES, "/withdrawals/new", "/withdrawals/W-1", "/certificates/C-1/signed"):
        assert visitor.get(page, 303).headers["location"] == "/login"
    for form in FORMS:
        assert visitor.client.post(form, data={"csrf": "x"}).status_code == 401
    assert visitor.get("/nothing", 404)


def test_log_ins_are_ledgered_without_names(console: str, place: Path) -> None:
    """Success, failures with their count, and log-out are entries, without name or password."""
    visitor = Visitor(console)
    assert "wrong" in text_of(visitor.log_in("officer", "not the password", 401))
    assert "wrong" in text_of(visitor.log_in("nobody", PASSWORD, 401))
    visitor.log_in("officer")
    visitor.send("/", "/logout")
    assert visitor.get("/", 303).headers["location"] == "/login"
    found = entries(place / "state", "console-login")
    assert [(e["outcome"], e["role"], e["failed"]) for e in found] == [
        ("failed", "officer", 1),
        ("failed", None, 1),
        ("ok", "officer", 1),
        ("ended", "officer", 0),
    ]
    assert all("nobody" not in str(e) and PASSWORD not in str(e) for e in entries(place / "state"))


def test_many_failures_close_an_account_for_a_while(console: str, place: Path) -> None:
    """After five failures even the right password is not heard; another account still is."""
    visitor = Visitor(console)
    for _ in range(PER_ACCOUNT):
        visitor.log_in("officer", "guess", 401)
    refused = visitor.log_in("officer", PASSWORD, 429)
    assert int(refused.headers["retry-after"]) > WINDOW_SECONDS / 2
    visitor.log_in("viewer")
    assert entries(place / "state", "console-login")[-1]["unheard"] == 1


def test_the_limit_counts_by_account_and_by_address() -> None:
    """One address cannot try many accounts; time opens both again; a success forgives the account alone."""
    clock = Clock()
    limit = LoginLimit(clock)
    for number in range(PER_ADDRESS):
        assert limit.begin(f"user{number}", "192.0.2.1") == 0
    assert limit.begin("another", "192.0.2.1") == WINDOW_SECONDS
    assert limit.begin("another", "192.0.2.2") == 0
    assert limit.succeeded("another", "192.0.2.2") == 0
    clock.now += WINDOW_SECONDS
    assert limit.begin("another", "192.0.2.1") == 0


def test_sessions_end_by_idleness_by_age_and_with_their_user(place: Path) -> None:
    """Half an hour of nothing, eight hours of anything; removal, another password or role end it at once."""
    clock = Clock()
    with serving(start(place / "state", clock=clock)) as url:
        visitor = Visitor(url)
        visitor.log_in("viewer")
        clock.now += IDLE_SECONDS - 1
        visitor.get("/")
        clock.now += IDLE_SECONDS - 1
        visitor.get("/withdrawals")
        clock.now += IDLE_SECONDS
        visitor.get("/", 303)
        visitor.log_in("viewer")
        with StateDirectory.open(place / "state", url="", exclusive=False) as state:
            ConsoleUsers(state).set_password("viewer", hash_password("another password"))
        visitor.get("/", 303)
        visitor.log_in("viewer", "another password")
        with StateDirectory.open(place / "state", url="", exclusive=False) as state:
            ConsoleUsers(state).remove("viewer")
        visitor.get("/", 303)
        visitor.log_in("viewer", "another password", 401)


def test_a_session_ends_by_its_age() -> None:
    """However busy it is."""
    clock = Clock()
    sessions = Sessions(clock=clock)
    user = type("User", (), {"id": "U-1", "changed_at": None})()
    token = sessions.begin(user)
    for _ in range(int(LONGEST_SECONDS // 1000)):
        assert sessions.find(token) is not None
        clock.now += 1000
    clock.now += 1000
    assert sessions.find(token) is None


def test_roles_may_do_what_is_theirs(console: str, place: Path) -> None:
    """A viewer only reads, an officer does not operate, an operator does not sign as the officer."""
    refused = {
        "viewer": ("/withdrawals", "/withdrawals/new", "/keys/officer", "/certificates/countersigned"),
        "officer": ("/withdrawals/W-1/certificate", "/models/x/export"),
        "operator": ("/keys/officer", "/certificates/countersigned"),
    }
    for role, forms in refused.items():
        visitor = Visitor(console)
        visitor.log_in(role)
        for page in PAGES:
            visitor.get(page)
        token = hidden_fields(visitor.get("/").text, "/logout")["csrf"]
        for form in forms:
            answer = visitor.client.post(form, data={"csrf": token})
            assert answer.status_code == 403, (role, form)
            assert f"As {role} you may not" in text_of(answer)
        assert ("File a withdrawal" in visitor.get("/").text) == (role != "viewer")
    viewer = Visitor(console)
    viewer.log_in("viewer")
    viewer.get("/withdrawals/new", 403)
    tried = [e["role"] for e in entries(place / "state", "console-action") if e["outcome"] == "refused"]
    assert tried == [role for role, forms in refused.items() for _ in forms]


def test_forms_from_elsewhere_are_refused(officer: Visitor, place: Path) -> None:
    """Without the session's token, with another one, or from another origin, nothing is done."""
    good = hidden_fields(officer.get("/ledger").text, "/ledger/verify")
    for data, headers in (
        ({}, {}),
        ({"csrf": "x" * 43}, {}),
        (good, {"origin": "https://evil.example"}),
        (good, {"sec-fetch-site": "cross-site"}),
    ):
        assert officer.client.post("/ledger/verify", data=data, headers=headers).status_code == 403
    assert not [e for e in entries(place / "state", "console-action") if e["action"] == "ledger-verify"]
    other = Visitor(str(officer.client.base_url))
    other.log_in("officer")
    assert other.client.post("/ledger/verify", data=good).status_code == 403
    assert officer.client.post("/ledger/verify", data=good).status_code == 200
    fields = {"name": "officer", "password": PASSWORD, "token": "0" * 64}
    assert Visitor(str(officer.client.base_url)).client.post("/login", data=fields).status_code == 403


def test_every_answer_has_the_headers(officer: Visitor) -> None:
    """Pages, redirects, errors, files of style: no script or style of others, no frame, no cache."""
    for path in (*PAGES, "/login", "/nothing", "/static/live.js", "/static/../visits.py"):
        answer = officer.client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
        if not path.startswith("/static/live"):
            assert answer.headers["cache-control"] == "no-store"
            assert "<style" not in answer.text
            assert " style=" not in answer.text
            assert "<script>" not in answer.text
    assert "strict-transport-security" not in officer.get("/").headers
    (cookie,) = [c for c in officer.client.cookies.jar if c.name == "reconsent"]
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "strict"
    wrong = officer.client.get("/", headers={"host": "evil.example"})
    assert wrong.status_code == 421


def test_with_tls_browsers_are_held_to_it(place: Path) -> None:
    """Cookies are Secure and bound to the host, and the browser is told to come by TLS only."""
    with serving(start(place / "state", secure=True)) as url:
        answer = Visitor(url).get("/login")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-reconsent-form=")
        assert "Secure" in cookie
        assert "Path=/" in cookie


def test_what_is_too_large_is_not_read(officer: Visitor) -> None:
    """By its declared length, or as it comes; the console goes on."""
    token = hidden_fields(officer.get("/certificates").text, "/certificates/verify")
    big = {"certificate": ("c.json", b"x" * (11 * 2**20))}
    assert officer.client.post("/certificates/verify", data=token, files=big).status_code == 413

    def pieces() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="certificate"; filename="c"\r\n\r\n'
        for _ in range(12):
            yield b"x" * 2**20

    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert officer.client.post("/certificates/verify", content=pieces(), headers=kind).status_code == 413
    officer.get("/")


def test_passwords_are_argon2_and_long_enough() -> None:
    """Argon2id with salt; a short one is refused; nobody's password is never right."""
    hashed = hash_password(PASSWORD)
    assert hashed.startswith("$argon2id$")
    assert hashed != hash_password(PASSWORD)
    assert is_password(hashed, PASSWORD)
    assert not is_password(hashed, PASSWORD + " ")
    assert not is_password(None, "nobody has this password")
    assert not is_outdated(hashed)
    with pytest.raises(ConfigError, match="11 characters"):
        hash_password("x" * 11)
