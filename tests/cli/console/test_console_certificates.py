"""Certificates, models, ledger and keys in the console."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load

from cli.main import main
from server.persistence import ModelRegistry, StateDirectory, Withdrawals
from server.persistence.own_checkpoints import CHECKPOINT_FILE
from tests.cli.console.console_at_work import Visitor, carry_out, entries, text_of
from unlearning.certificate.signed import countersign
from unlearning.signing import SigningKey


@pytest.fixture
def operator(console: str) -> Visitor:
    """The operator, logged in."""
    visitor = Visitor(console)
    visitor.log_in("operator")
    return visitor


def test_a_certificate_needs_two_people_and_holds_to_the_byte(
    officer: Visitor, operator: Visitor, place: Path
) -> None:
    """Issued by the operator, signed elsewhere, brought back, verified; a changed one does not hold."""
    officer.confirm(officer.file("delta"))
    carry_out(place, "unlearn")
    with StateDirectory.open(place / "state", url="", writable=False) as state:
        (record,) = Withdrawals(state).all()
    page = f"/withdrawals/{record.id}"
    assert "completed" in text_of(officer.get(page))
    refused = operator.send(page, f"{page}/certificate", status=400)
    assert "not known which key" in text_of(refused)
    key = SigningKey.generate()
    officer.send("/keys", "/keys/officer", files={"key": ("officer.pub", key.public.pem())})
    where = operator.send(page, f"{page}/certificate").headers["location"]
    assert "Not valid yet" in text_of(officer.get(where))
    unsigned = text_of(officer.send(where, f"{where}/verify", status=200))
    assert "signature of the privacy officer is missing" in unsigned
    signed = countersign(officer.get(f"{where}/signed").content, key).content
    back = {"certificate": ("../../evil.json", signed)}
    forged = {"certificate": ("c.json", signed.replace(b'"sig":"', b'"sig":"A', 1))}
    officer.send("/certificates", "/certificates/countersigned", files=forged, status=400)
    officer.send("/certificates", "/certificates/countersigned", files=back)
    assert "Verified" in text_of(officer.send(where, f"{where}/verify", status=200))
    assert "participation_ended" in text_of(officer.get(where))
    whole = officer.get(f"{where}/whole")
    assert "Not valid yet" not in whole.text
    assert "style-src 'sha256-" in whole.headers["content-security-policy"]
    assert officer.get(f"{where}/pdf").content.startswith(b"%PDF-")
    upload = "/certificates/verify"
    for content, words in ((signed, "✓ Verified"), (signed[:-2] + b" \n", "✗ Not verified")):
        files = {"certificate": ("c.json", content)}
        assert words in text_of(officer.send("/certificates", upload, files=files, status=200))
    other = {"certificate": ("c.json", signed), "keys": ("k.pub", SigningKey.generate().public.pem())}
    assert "was not given" in text_of(officer.send("/certificates", upload, files=other, status=200))
    archive = place / "bundle.zip"
    archive.write_bytes(officer.get(f"{where}/bundle").content)
    assert officer.get(f"{where}/bundle").content == archive.read_bytes()
    (place / "officer.pub").write_bytes(key.public.pem())
    (place / "operator.pub").write_bytes(officer.get("/keys/operator").content)
    keys = ["--key", str(place / "operator.pub"), "--key", str(place / "officer.pub")]
    for content, words in (
        (archive.read_bytes(), "files of the bundle are as they were signed"),
        (archive.read_bytes().replace(b"lineage.json", b"lineage.jsom"), "lineage.jsom was added"),
    ):
        files = {"certificate": ("bundle.zip", content)}
        assert words in text_of(officer.send("/certificates", upload, files=files, status=200))
    with pytest.raises(SystemExit) as ended:
        main(["certificate", "verify", str(archive), *keys])
    assert not ended.value.code
    # The officer has a new key: what is on record as signed before holds, what comes later does not.
    late = operator.send(page, f"{page}/certificate").headers["location"]
    late_signed = countersign(officer.get(f"{late}/signed").content, key).content
    new = {"key": ("new.pub", SigningKey.generate().public.pem())}
    officer.send("/keys", "/keys/officer", files=new)
    assert "Verified" in text_of(officer.send(where, f"{where}/verify", status=200))
    assert text_of(officer.get("/keys")).count("in force") == 4
    for content, words in ((signed, "✓ Verified"), (late_signed, f"{key.key_id[:16]}… was replaced on")):
        files = {"certificate": ("c.json", content)}
        assert words in text_of(officer.send("/certificates", upload, files=files, status=200))
    refused = officer.send("/certificates", "/certificates/countersigned", files=files, status=400)
    assert "was replaced on" in text_of(refused)
    done = [(e["action"], e["outcome"]) for e in entries(place / "state", "console-action")]
    assert ("certificate-issue", "done") in done
    assert ("certificate-countersigned", "done") in done
    assert ("certificate-verify", "fails") in done


def test_models_are_given_away_on_record_and_revoked_ones_are_not(operator: Visitor, place: Path) -> None:
    """The file holds the arrays; the recipient is on record; a revoked version is refused."""
    with StateDirectory.open(place / "state", url="", exclusive=False) as state:
        registry = ModelRegistry(state)
        latest = registry.latest("main")
        assert latest is not None
        arrays = registry.load(latest.id)
        page = f"/models/{latest.id}"
        answer = operator.send(page, f"{page}/export", {"recipient": "Clinic B"}, status=200)
        assert (load(answer.content)["theta"] == arrays["theta"]).all()
        assert "Clinic B" in text_of(operator.get(page))
        token = operator.hidden(page, f"{page}/export")
        registry.revoke_descendants_of_site("delta", "withdrawal")
    refused = operator.client.post(f"{page}/export", data={**token, "recipient": "Clinic C"})
    assert (refused.status_code, "was revoked" in text_of(refused)) == (409, True)
    assert "Clinic C" not in text_of(operator.get(page))
    assert "Revoked: withdrawal" in text_of(operator.get(page))
    operator.get("/models/nothing", 404)


def test_the_ledger_is_verified_and_an_altered_entry_is_named(officer: Visitor, place: Path) -> None:
    """Sound as it is, also beside a site's checkpoint; an entry altered behind its back is named."""
    page, check = "/ledger", "/ledger/verify"
    assert "Every entry is as it was written" in text_of(officer.send(page, check, status=200))
    kept = place / "kept.checkpoint"
    with pytest.raises(SystemExit):
        main(["ledger", "export", "--checkpoint", str(kept), "--state", str(place / "state")])
    files = {"checkpoint": ("kept", kept.read_bytes())}
    assert "goes on from the checkpoint" in text_of(officer.send(page, check, files=files, status=200))
    garbage = {"checkpoint": ("kept", b"[]")}
    assert "holds no checkpoint" in text_of(officer.send(page, check, files=garbage, status=400))
    exported = officer.send(page, "/ledger/export", status=200)
    assert exported.content.startswith(b'{"format":"reconsent-ledger/1"')
    assert "console-login" in officer.get("/ledger?kind=console-login").text
    for query in ("?page=2", "?page=-1", "?page=99999999999", "?kind=%3Cscript%3E"):
        assert "<script>" not in officer.get(f"/ledger{query}").text
    own = place / "state" / CHECKPOINT_FILE
    own.unlink()
    assert "Whether the end was cut off is not known" in text_of(officer.send(page, check, status=200))
    own.write_bytes(b"{}")
    assert f"{CHECKPOINT_FILE} holds no checkpoint" in text_of(officer.send(page, check, status=200))
    with StateDirectory.open(place / "state", url="") as state, state.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER ledger_no_update")
        connection.exec_driver_sql("UPDATE ledger SET content = replace(content, 'alpha', 'omega')")
    assert "cannot be read" in text_of(officer.get(page))
    answer = text_of(officer.send(page, check, status=200))
    assert "is not what was written" in answer
    assert "its content was altered" in answer
