"""The evidence bundle: whole, and worth nothing once a byte of it is changed."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.certificate.bundle import zipped
from reconsent.config import dump_consortium
from reconsent.errors import ReconsentError, SignatureError
from reconsent.files import sha256_of
from tests.cli.certificate.bundle_maker import LEAVER, Made, command
from tests.server.hospitals import consortium, opened
from unlearning.certificate import layout
from unlearning.certificate.signed import countersign, issue
from unlearning.certificate.statement import SIMULATION, Request
from unlearning.intake import NAMES
from unlearning.signing import SigningKey

WHOLE = layout.FILES.keys() - {layout.FINDINGS}
"""Every file; further findings there are of a simulation."""


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Path:
    """A copy of the bundle, to be spoilt."""
    return shutil.copytree(made.directory, tmp_path / made.directory.name)


def test_the_bundle_is_whole(made: Made) -> None:
    """Every file of the layout is there, and it verifies as it is and in its archive."""
    assert made.files.keys() == WHOLE
    checked = made.check(made.directory)
    assert (checked.files, checked.receipts) == (len(WHOLE), 1)
    assert checked.part is not None
    kinds = {entry.kind for entry in checked.part.entries}
    assert kinds >= {"ledger-begun", "withdrawal", "withdrawal-act", "contributions-erased", "models-revoked"}


def test_a_changed_byte_of_any_file_is_named(made: Made, copy: Path) -> None:
    """One bit of the first, the middle or the last byte of each file: verification fails, and says which."""
    for name, content in made.files.items():
        for place in {0, len(content) // 2, len(content) - 1}:
            (copy / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(ReconsentError) as failed:
                made.check(copy)
            assert name in failed.value.problem, (name, place)
        (copy / name).write_bytes(content)
    made.check(copy)


def test_a_missing_an_added_and_a_linked_file_are_named(made: Made, copy: Path) -> None:
    """So are several at once; the signed file alone cannot be told from no bundle."""
    for name in made.files.keys() - {layout.SIGNED}:
        (copy / name).rename(copy / "elsewhere.json")
        with pytest.raises(SignatureError) as failed:
            made.check(copy)
        assert f"{name} is missing; elsewhere.json was added" in failed.value.problem
        (copy / "elsewhere.json").rename(copy / name)
    (copy / "audit" / "notes.txt").write_text("x")
    (copy / "\x1b[31mred").write_text("x")
    with pytest.raises(SignatureError, match=r"x1b\[31mred' was added; audit/notes.txt was added"):
        made.check(copy)
    (copy / "audit" / "notes.txt").unlink()
    (copy / "\x1b[31mred").unlink()
    (copy / layout.PAGE).unlink()
    (copy / layout.PAGE).symlink_to(made.directory / layout.PAGE)
    with pytest.raises(SignatureError, match=r"certificate.html cannot be read"):
        made.check(copy)
    (copy / layout.SIGNED).unlink()
    with pytest.raises(SignatureError, match=r"0 signed certificates \(certificate.dsse.json\)"):
        made.check(copy)


def test_an_archive_is_checked_like_the_directory(made: Made, tmp_path: Path) -> None:
    """Whole it verifies; changed, added inside or beside, twice, or cut off it does not."""
    archive, top = tmp_path / "bundle.zip", made.directory.name
    archive.write_bytes(zipped(top, made.files))
    assert made.check(archive).files == len(WHOLE)
    altered = {**made.files, "lineage.json": made.files["lineage.json"].replace(b"0", b"1", 1)}
    archive.write_bytes(zipped(top, altered))
    with pytest.raises(SignatureError, match=r"lineage.json was altered"):
        made.check(archive)
    for extra, named in ((f"{top}/keys/more.pub", "keys/more.pub was added"), ("evil", "../evil was added")):
        archive.write_bytes(zipped(top, made.files))
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(extra, "x")
        with pytest.raises(SignatureError, match=named):
            made.check(archive)
    archive.write_bytes(zipped(top, made.files))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(archive, "a") as file:
        file.writestr(f"{top}/policy.json", made.files["policy.json"])
    with pytest.raises(SignatureError, match=r"policy.json was added"):
        made.check(archive)
    archive.write_bytes(zipped(top, made.files)[:-40])
    with pytest.raises(SignatureError, match="no readable bundle"):
        made.check(archive)


def test_the_commands_verify_a_bundle_and_say_what_was_shown(
    made: Made, copy: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the keys it verifies; without them, for another consortium, or altered, it ends with status 1."""
    capsys.readouterr()
    own = ("--key", made.directory / layout.OPERATOR, "--key", made.directory / layout.OFFICER)
    command("certificate", "verify", copy, *own)
    said = capsys.readouterr().out
    assert "VERIFIED" in said
    assert f"{len(WHOLE)} files of the bundle are as they were signed" in said
    assert "signed by its node's key" in said
    command("certificate", "verify", copy / layout.SIGNED, *own)
    assert "nothing is said of the other files" in capsys.readouterr().out
    command("certificate", "verify", copy, *own, "--consortium", "other", status=1)
    (tmp_path / "stranger.pub").write_bytes(SigningKey.generate().public.pem())
    command("certificate", "verify", copy, "--key", tmp_path / "stranger.pub", *own[2:], status=1)
    (copy / "request.json").write_bytes(b"{}")
    command("certificate", "verify", copy, *own, status=1)
    assert "request.json was altered" in capsys.readouterr().err


def former(made: Made, path: Path) -> Path:
    """The bundle as it was before there was a manifest: fewer files, and page and instructions unsigned."""
    names = ("lineage.json", "policy.json", "recipients.json", "residuals.json")
    own = {name: made.files[name] for name in names}
    request = made.certificate.request.model_dump(exclude=set(NAMES) | {"words", "not_recorded"})
    certificate = made.certificate.model_copy(
        update={
            "files": {name: sha256_of(content) for name, content in own.items()},
            "request": Request(**request),
        }
    )
    signed = countersign(issue(certificate, made.operator).content, made.officer)
    path.mkdir()
    files = {**own, "certificate.html": b"<p>a page</p>", "VERIFY.md": b"how", layout.SIGNED: signed.content}
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def test_a_bundle_without_a_manifest_is_told_apart_from_an_altered_one(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does not verify, but it is said what still holds, what is unsigned, altered and missing."""
    old = former(made, tmp_path / "old")
    operator = tmp_path / "operator.pub"
    operator.write_bytes(made.operator.public.pem())
    keys = ("--key", operator, "--key", made.directory.parent.parent / "officer.pub")
    command("certificate", "verify", old / layout.SIGNED, *keys)
    capsys.readouterr()
    command("certificate", "verify", old, *keys, status=1)
    said = capsys.readouterr().err
    assert "before bundles had a manifest" in said
    assert "both signatures hold" in said
    assert "as they were signed: lineage.json, policy.json, recipients.json, residuals.json" in said
    assert "no signature, whatever they say: VERIFY.md, certificate.html" in said
    assert "never made: certificate.json, request.json, decisions.jsonl" in said
    assert "issue the certificate anew" in said
    (old / "lineage.json").write_bytes(b"{}")
    (old / "residuals.json").unlink()
    (old / "\x1b[2J").write_bytes(b"")
    command("certificate", "verify", old, *keys, status=1)
    said = capsys.readouterr().err
    assert "NOT AS SIGNED: lineage.json was altered; residuals.json is missing" in said
    assert "as they were signed: policy.json, recipients.json\n" in said
    assert "\x1b" not in said
    signed = bytearray((old / layout.SIGNED).read_bytes())
    signed[500] ^= 1
    (old / layout.SIGNED).write_bytes(signed)
    command("certificate", "verify", old, *keys, status=1)
    assert "manifest" not in capsys.readouterr().err


def test_no_file_names_a_site_that_remains(made: Made) -> None:
    """The leaver is named in the ledger's own entries only; the others, and who asked, nowhere."""
    statement = made.files[layout.STATEMENT]
    for name, content in {**made.files, layout.SIGNED: statement}.items():
        for word in ("alpha", "beta", "gamma", "dpo@"):
            assert word.encode() not in content, (name, word)
        if name not in (layout.SLICE, layout.STATEMENT, layout.SIGNED):
            assert LEAVER.encode() not in content, name


def test_the_bundle_can_be_checked_without_reconsent(made: Made) -> None:
    """The commands that VERIFY.md gives work: the list of hashes, and a key's fingerprint."""
    text = made.files[layout.VERIFY].decode()
    code = text[text.index("import json") : text.index("print(d") + len('print(d, "", f)')]
    code = "\n".join(line.strip() for line in code.splitlines())
    listed = subprocess.run(
        [sys.executable, "-c", code], cwd=made.directory, capture_output=True, check=True
    ).stdout
    told = subprocess.run(
        ["sha256sum", "-c"], cwd=made.directory, input=listed, capture_output=True, check=True
    ).stdout.decode()
    assert told.count(": OK") == len(WHOLE) - 3
    der = ["openssl", "pkey", "-pubin", "-in", layout.OPERATOR, "-outform", "DER"]
    key = subprocess.run(der, cwd=made.directory, capture_output=True, check=True).stdout
    assert hashlib.sha256(key).hexdigest() in text
    payload = base64.b64decode(json.loads(made.files[layout.SIGNED])["payload"])
    assert payload == made.files[layout.STATEMENT]


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Path]:
    """The directory of a simulation from which delta was withdrawn."""
    config = consortium(
        withdrawals=({"sites": (LEAVER,)},),
        unlearning={"method": "retain-ft", "settings": {}},
        assessment={"oracle": False},
    )
    with opened(tmp_path, config) as run:
        run.coordinator.run()
    (tmp_path / "consortium.toml").write_text(dump_consortium(config))
    yield tmp_path


def test_a_simulation_says_so_in_every_place(simulated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the names, the manifest, the request, the page, the instructions, and by whoever verifies it."""
    command("certificate", "key", simulated / "officer")
    given = ("--officer", simulated / "officer.pub", "--out", simulated / "out")
    command("certificate", "issue", "W-", *given, "--state", simulated / "state")
    (directory,) = (simulated / "out").iterdir()
    command("certificate", "countersign", directory, "--key", simulated / "officer")
    assert layout.SIMULATED in directory.name
    signed = directory / layout.named(layout.SIGNED, simulation=True)
    assert layout.SIMULATED in signed.name
    files = (layout.MANIFEST, layout.VERIFY, layout.PAGE, "request.json", "verification.json", layout.SLICE)
    for name in (*files, layout.named(layout.STATEMENT, simulation=True)):
        assert SIMULATION in (directory / name).read_text(), name
    own = ("--key", directory / layout.OPERATOR, "--key", directory / layout.OFFICER)
    capsys.readouterr()
    command("certificate", "verify", directory, *own)
    said = capsys.readouterr().out
    assert said.startswith(SIMULATION)
    assert "no receipt" in said
    # Given another name, it is refused.
    signed.rename(directory / layout.SIGNED)
    command("certificate", "verify", directory, *own, status=1)
    assert f"{signed.name} is missing" in capsys.readouterr().err


def test_a_bundle_is_not_written_among_other_files(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What does not belong to a bundle is never removed; what an earlier one left is."""
    target = tmp_path / made.directory.name
    target.mkdir()
    (target / "letter.pdf").write_bytes(b"x")
    issued = ("certificate", "issue", "W-", "--out", tmp_path, "--state", made.state)
    command(*issued, status=1)
    assert "letter.pdf does not belong to a bundle" in capsys.readouterr().err
    (target / "letter.pdf").rename(target / layout.receipt_name(2))
    command(*issued)
    assert not (target / layout.receipt_name(2)).exists()
    assert {path.name for path in target.rglob("*") if path.is_file()} >= {"slice.jsonl", "MANIFEST.json"}
