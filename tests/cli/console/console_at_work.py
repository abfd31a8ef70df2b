"""A console on the state of a small real consortium, and people who use it."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.node_pb2 import NodeInfo  # type: ignore[attr-defined]

from cli.console.application import application
from cli.console.limits import LoginLimit
from cli.console.opened import OpenState
from cli.console.passwords import hash_password
from cli.console.serving import server_config
from cli.console.sessions import Sessions
from cli.console.visits import Console
from deploy.layout import Layout
from reconsent.config import dump_consortium
from server.node_keys import fingerprint
from server.persistence import ConsoleUsers, Enrolments, Ledger, Role, StateDirectory
from server.service import Service, Task, recording
from strategies.local_grid import LocalGrid
from tests.server.hospitals import SITES, consortium, grid, opened

PASSWORD = "four words make one"  # noqa: S105
CONFIG = consortium(
    unlearning={"method": "retain-ft", "settings": {}, "rounds-fraction": 0.5},
    training={"evaluate-every": 1},
)


class Keyed(LocalGrid):
    """Nodes with keys, as a SuperLink tells them."""

    def __init__(self) -> None:
        self.__dict__ = grid().__dict__

    def get_nodes(self) -> list[Any]:
        """Number and key of each."""
        return [NodeInfo(node_id=number, public_key=KEYS[number]) for number in self.get_node_ids()]


PRIVATE_KEYS = {number: ec.generate_private_key(ec.SECP384R1()) for number in range(1, len(SITES) + 1)}
KEYS = {
    number: key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for number, key in PRIVATE_KEYS.items()
}


def carry_out(path: Path, kind: Any, rounds: int = 0) -> None:
    """A task of the real service on the state at ``path``/state, as a run of a deployment does it."""
    with opened(path, CONFIG, Keyed(), simulated=False) as run:
        task = Task(kind, rounds)
        with recording(run.coordinator.state, "1", task):
            Service(run.coordinator).carry_out(task)


def make_state(path: Path) -> Path:
    """A deployment's state: enrolled sites, two rounds of training, one user of each role."""
    state = path / "state"
    layout = Layout(state)
    layout.make()
    layout.consortium.write_text(dump_consortium(CONFIG))
    hashed = hash_password(PASSWORD)
    with StateDirectory.open(state, url="") as directory:
        for place, site in enumerate(SITES, start=1):
            Enrolments(directory).enrol(site, fingerprint(KEYS[place]), node_id=place)
        for role in Role:
            ConsoleUsers(directory).add(role.value, role, hashed)
    carry_out(path, "train", 2)
    return state


def start(state: Path, *, secure: bool = False, clock: Any = None) -> Console:
    """A console with sessions and a limit of its own."""
    timed = {} if clock is None else {"clock": clock}
    return Console(OpenState(state), Sessions(**timed), LoginLimit(**timed), secure=secure)


@contextmanager
def serving(console: Console) -> Iterator[str]:
    """The console on a port of this machine, from a thread of this process."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        server = uvicorn.Server(server_config(application(console, ["127.0.0.1"])))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            console.opened.close()


class Visitor:
    """Somebody with a browser that keeps cookies and runs no scripts."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, trust_env=False, verify=False, timeout=60)  # noqa: S501

    def get(self, path: str, status: int = 200) -> httpx.Response:
        """Load a page."""
        answer = self.client.get(path)
        assert answer.status_code == status, f"{path}: {answer.status_code}\n{answer.text}"
        return answer

    def send(
        self, page: str, path: str, fields: Mapping[str, Any] | None = None, *, status: int = 303,
        files: Any = None, **headers: str,
    ) -> httpx.Response:  # fmt: skip
        """Send the form at ``path`` that is on ``page``, with its hidden fields."""
        hidden = self.hidden(page, path)
        answer = self.client.post(path, data={**hidden, **(fields or {})}, files=files, headers=headers)
        assert answer.status_code == status, f"{path}: {answer.status_code}\n{text_of(answer)}"
        return answer

    def hidden(self, page: str, path: str) -> dict[str, str]:
        """The hidden fields of a form."""
        return hidden_fields(self.get(page).text, path)

    def log_in(self, name: str, password: str = PASSWORD, status: int = 303) -> httpx.Response:
        """Log in."""
        return self.send("/login", "/login", {"name": name, "password": password}, status=status)

    def file(self, site: str, **fields: Any) -> httpx.Response:
        """Fill in the form and go on to the confirmation."""
        asked = {"site": site, "scope": "site", "ground": "consent-withdrawn", "reason": "asked to leave",
                 "requested_by": "dpo@delta.example", **fields}  # fmt: skip
        return self.send("/withdrawals/new", "/withdrawals/new", asked, status=200)

    def confirm(self, page: httpx.Response, status: int = 303) -> httpx.Response:
        """Confirm what the page shows."""
        answer = self.client.post("/withdrawals", data=hidden_fields(page.text, "/withdrawals"))
        assert answer.status_code == status, text_of(answer)
        return answer


def hidden_fields(page: str, path: str) -> dict[str, str]:
    """The hidden fields of the form that goes to ``path``."""
    pattern = rf'<form[^>]*method="post"[^>]*action="{re.escape(path)}"[^>]*>(.*?)</form>'
    form = re.search(pattern, page, re.DOTALL)
    assert form is not None, f"no form to {path}"
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form[1]))


def text_of(answer: httpx.Response) -> str:
    """What a reader of the page reads."""
    body = answer.text.partition("<main")[2] or answer.text
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def entries(state: Path, *kinds: str) -> list[dict[str, Any]]:
    """The bodies of the ledger's entries."""
    with StateDirectory.open(state, url="", writable=False) as directory:
        return [dict(entry.body) for entry in Ledger(directory).entries(kinds or None)]
