"""A real withdrawal's evidence bundle, and forgeries of it that both have signed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cli.certificate.bundle import bundle_files
from cli.certificate.checking import Checked, check_bundle
from cli.certificate.reading import Bundle
from cli.main import main
from client.site_log import SiteLog
from client.witness import Witness, witness_path
from reconsent.files import sha256_of
from server.persistence import Ledger, StateDirectory, Withdrawals
from server.persistence.ledger import KEY_FILE
from server.witnesses import Witnesses
from tests.cli.console.console_at_work import PRIVATE_KEYS, carry_out, make_state
from tests.server.hospitals import SITES
from unlearning.certificate import layout
from unlearning.certificate.signed import countersign, issue, read_unverified
from unlearning.certificate.statement import Certificate
from unlearning.ledger.canonical import canonical
from unlearning.signing import PublicKey, SigningKey, load_key

LEAVER = "delta"
NODE = SITES.index(LEAVER) + 1


def command(*arguments: object, status: int = 0) -> None:
    """Type a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert (ended.value.code or 0) == status, arguments


@dataclass(frozen=True)
class Made:
    """A bundle, the state it was made from, and the two who signed."""

    directory: Path
    state: Path
    site: Path
    operator: SigningKey
    officer: SigningKey

    @property
    def keys(self) -> list[PublicKey]:
        """Those that are trusted."""
        return [self.operator.public, self.officer.public]

    @property
    def files(self) -> dict[str, bytes]:
        """Every file by its name."""
        return {
            path.relative_to(self.directory).as_posix(): path.read_bytes()
            for path in self.directory.rglob("*")
            if path.is_file()
        }

    @property
    def certificate(self) -> Certificate:
        """What was signed."""
        return read_unverified((self.directory / layout.SIGNED).read_bytes()).certificate

    def check(self, directory: Path) -> Checked:
        """Verify a copy."""
        return check_bundle(Bundle.at(directory), self.keys)


def site_files(path: Path, state: Path) -> Path:
    """What the leaver's node keeps: its key, a log of one training, and the checkpoint it was sent."""
    path.mkdir()
    key = PRIVATE_KEYS[NODE].private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (path / "key").write_bytes(key)
    (path / "key").chmod(0o600)
    log = SiteLog(path / "policy.log.jsonl")
    log.append("worked", {"site": LEAVER, "run": "1", "type": "train.x", "round": 1, "model-received": "ab",
                          "model-sent": "cd"})  # fmt: skip
    log.append("refused", {"site": LEAVER, "type": "train.x", "reason": "withdrawn"})
    with StateDirectory.open(state, url="", writable=False) as opened_state:
        told = Witnesses(Ledger(opened_state), simulated=False).told(LEAVER)
    assert Witness(witness_path(log.path)).refusal(told) is None
    (path / "site.toml").write_text(
        'name = "delta"\nsuperlink = "127.0.0.1:9092"\nca = "ca"\nkey = "key"\nconsortium = "c.toml"\n'
        'policy = "policy.toml"\n'
    )
    return path


def make_bundle(path: Path) -> Made:
    """Delta left a real consortium and gave a receipt; operator and officer have signed."""
    state = make_state(path)
    site = site_files(path / "delta", state)
    with StateDirectory.open(state, url="") as directory:
        Withdrawals(directory).file([LEAVER], reason="asked", requested_by="dpo@delta.example", restrict=True)
    carry_out(path, "unlearn")
    receipt = path / "receipt"
    command("site", "receipt", site / "site.toml", "--out", receipt)
    command("certificate", "key", path / "officer")
    given = ("--officer", path / "officer.pub", "--receipt", receipt, "--out", path / "out")
    command("certificate", "issue", "W-", *given, "--state", state)
    (directory_,) = (path / "out").iterdir()
    command("certificate", "countersign", directory_, "--key", path / "officer")
    return Made(directory_, state, site, load_key(state / KEY_FILE), load_key(path / "officer"))


def resigned(made: Made, path: Path, changes: Mapping[str, bytes], *, manifest: bool = True) -> Path:
    """The bundle with files that both have signed in another form, hashes and all."""
    certificate = made.certificate
    own = {name: content for name, content in made.files.items() if name in certificate.files} | changes
    if manifest:
        table = json.loads(own[layout.MANIFEST])
        table["files"] = {name: sha256_of(own[name]) for name in own if name != layout.MANIFEST}
        own[layout.MANIFEST] = canonical(table)
    certificate = certificate.model_copy(
        update={"files": {name: sha256_of(content) for name, content in own.items()}}
    )
    signed = countersign(issue(certificate, made.operator).content, made.officer)
    for name, content in bundle_files(signed, own).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path
