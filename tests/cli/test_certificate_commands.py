"""The privacy officer's commands, on the state that a run left: register, certificate, record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from cli.certificate.issuing import verify_here
from reconsent.files import sha256_of
from server.persistence import Exports, Ledger, ModelRegistry, StateDirectory
from server.service import Service, Task
from server.signing_terms import OFFICER, signing_terms
from tests.cli.officer_at_work import Officer
from tests.cli.results_builder import build_results
from tests.cli.test_report_evidence import evidence
from tests.server.hospitals import consortium, opened
from unlearning.certificate import layout
from unlearning.certificate.signed import read_unverified
from unlearning.certificate.statement import SIMULATION
from unlearning.signing import load_public_key
from unlearning.verification.limits import limits_of


def test_the_register_is_kept_without_a_run(officer: Officer) -> None:
    """Extended, held, noted, released, shown; an unknown id and a second extension are refused."""
    assert "extended, to be answered by" in officer("withdrawals", "extend", "W-", "--reason", "holidays")
    assert "extended once" in officer("withdrawals", "extend", "W-", "--reason", "x", status=1)
    officer("withdrawals", "hold", "W-", "--reason", "trial", "--until", "2030-01-01", "--by", "Ada")
    officer("withdrawals", "note", "W-", "called", "--owner", "Grace")
    officer("withdrawals", "release", "W-", "--reason", "over")
    (listed,) = json.loads(officer("withdrawals", "list", "--json"))
    assert (listed["state"], listed["owner"], listed["overdue"]) == ("restricted", "Grace", False)
    shown = json.loads(officer("withdrawals", "show", "W-", "--json"))
    assert [act["kind"] for act in shown["acts"]] == ["extended", "hold", "note", "owner"]
    assert {event["actor"] for event in shown["events"]} >= {"dpo", "Ada"}
    assert {entry["recipient"] for entry in shown["recipients"]} >= {"site:alpha", "site:delta"}
    assert "Grace" in officer("withdrawals", "show", "W-")
    assert "no withdrawal 'W-9'" in officer("withdrawals", "show", "W-9", status=1)
    assert "nothing to note" in officer("withdrawals", "note", "W-", status=1)


def test_recipients_are_told_by_name(officer: Officer) -> None:
    """An export has its recipient on record; who received nothing cannot be told; --all tells the rest."""
    file = str(officer.path / "model")
    officer("model", "export", "latest", "--out", file, "--recipient", "Clinic B")
    with StateDirectory.open(officer.path / "state", url="", writable=False) as state:
        (export,) = Exports(state).all()
        latest = ModelRegistry(state).latest("main")
        assert latest is not None
        assert (export.version, export.recipient) == (latest.id, "Clinic B")
    assert "received none" in officer("withdrawals", "notify", "W-", "Museum", status=1)
    assert "Told: Clinic B." in officer("withdrawals", "notify", "W-", "Clinic B")
    assert "Every recipient has been told" in officer("withdrawals", "notify", "W-", "--all")


def test_a_certificate_from_issue_to_verification(officer: Officer, tmp_path: Path) -> None:
    """Issued, countersigned, verified without the state; a changed file of the bundle is noticed."""
    key, out = str(tmp_path / "officer"), tmp_path / "out"
    assert "not known which key" in officer("certificate", "issue", "W-", "--out", str(out), status=1)
    officer("certificate", "key", key, state=False)
    officer("withdrawals", "refuse", "W-", "--reason", "manifestly unfounded")
    officer("certificate", "issue", "W-", "--officer", f"{key}.pub", "--out", str(out))
    (bundle,) = out.iterdir()
    keys = ("--key", str(bundle / "keys" / "operator.pub"), "--key", f"{key}.pub")
    alone = officer("certificate", "verify", str(bundle), *keys, status=1, state=False)
    assert "privacy officer is missing" in alone
    shown = ("certificate", "show", str(bundle), "--out", str(tmp_path / "page.html"))
    officer(*shown, state=False)
    assert "Not valid yet" in (tmp_path / "page.html").read_text()
    officer("certificate", "countersign", str(bundle), "--key", key, state=False)
    officer(*shown, state=False)
    assert "Not valid yet" not in (tmp_path / "page.html").read_text()
    assert "manifestly unfounded" in (bundle / "certificate.html").read_text()
    officer("certificate", "show", str(bundle), "--pdf", str(tmp_path / "c.pdf"), state=False)
    assert (tmp_path / "c.pdf").read_bytes().startswith(b"%PDF-")
    shutil.rmtree(officer.path)
    assert "VERIFIED" in officer("certificate", "verify", str(bundle), *keys, state=False)
    found = json.loads(officer("certificate", "verify", str(bundle), *keys, "--json", state=False))
    assert (found["claim_level"], found["outcome"]) == ("none", "refused")
    other = (*keys, "--consortium", "other")
    assert "not of 'other'" in officer("certificate", "verify", str(bundle), *other, status=1, state=False)
    (bundle / "decisions.jsonl").write_bytes(b"[]")
    assert "decisions.jsonl was altered" in officer(
        "certificate", "verify", str(bundle), *keys, status=1, state=False
    )


def test_figures_of_another_withdrawal_are_left_out_and_that_is_said(
    officer: Officer, tmp_path: Path
) -> None:
    """Results of a later withdrawal of the same state: issued without; of a foreign model: refused."""
    key, out = str(tmp_path / "officer"), tmp_path / "out"
    officer("certificate", "key", key, state=False)
    with opened(officer.path, consortium()) as run:
        Service(run.coordinator).carry_out(Task("unlearn", 0))
        registry = ModelRegistry(run.coordinator.state)
        last = registry.latest("main")
        assert last is not None
        later = registry.add(
            {name: array + 1 for name, array in registry.load(last.id).items()}, line="main",
            round=last.round + 1, kind="unlearned", parent=last.id, sites={"beta": 1.0}, forgets={"alpha"},
        )  # fmt: skip
    results = build_results()
    foreign = results.models["unlearned"].model_copy(update={"sha256": "0" * 64})
    models = results.models | {"unlearned": foreign}
    results.model_copy(update={"models": models}).save(officer.path / "results.json")
    issue = ("certificate", "issue", "W-", "--officer", f"{key}.pub", "--out", str(out))
    assert "measured on another model" in officer(*issue, status=1)
    models["unlearned"] = foreign.model_copy(update={"sha256": later.digest})
    results.model_copy(update={"models": models}).save(officer.path / "results.json")
    assert "are not in it: they are of the model that another withdrawal" in officer(*issue)
    (bundle,) = out.iterdir()
    assert "oracle-gap" not in (bundle / "certificate.json").read_text()
    assert not (bundle / layout.FINDINGS).exists()
    models["unlearned"] = foreign.model_copy(update={"sha256": last.digest})
    own = results.model_copy(update={"models": models, "evidence": evidence()})
    own.save(officer.path / "results.json")
    officer(*issue)
    check_further_findings(bundle)


def check_further_findings(bundle: Path) -> None:
    """They are a file of the bundle, with what they do not show in the certificate and on its page."""
    made = read_unverified((bundle / layout.SIGNED).read_bytes()).certificate
    assert "oracle-gap/forget-test" in {item.name for item in made.evidence}
    findings = json.loads((bundle / layout.FINDINGS).read_bytes())
    assert findings.pop("notice") == SIMULATION
    assert findings == json.loads(evidence().model_dump_json())
    assert made.files[layout.FINDINGS] == sha256_of((bundle / layout.FINDINGS).read_bytes())
    told = [words for words in made.not_shown if "findings.json" in words]
    assert len(told) == 1
    assert "Of 2, 1 passed (gap/forget-test), 0 failed, 1 undecided (alignment)" in told[0]
    for words in ("By gap: Gaps are averages.", "left out: continuation: not asked for."):
        assert any(words in item for item in made.not_shown)
        assert words in (bundle / layout.PAGE).read_text()
    # What a figure cannot show is said in the words of its check, whatever says it.
    gap = next(item for item in made.evidence if item.name == "oracle-gap/forget-test")
    assert gap.limits == limits_of("gap")


def test_how_the_request_came_in_is_in_the_certificate(officer: Officer, tmp_path: Path) -> None:
    """Said after the filing: shown as text, signed, and only what nobody has said is named as missing."""
    key, out, hostile = str(tmp_path / "officer"), tmp_path / "out", "<b>DUA</b> [red]7[/red]"
    assert "not said" in officer("withdrawals", "show", "W-")
    note = ("withdrawals", "note", "W-")
    assert "U+202E" in officer(*note, "--agreement", "a\u202eb", status=1)
    assert "pigeon" in officer(*note, "--channel", "pigeon", status=2)
    officer(*note, "--agreement", "Jane Doe")
    officer(*note, "--channel", "letter", "--identity-check", "call-back", "--agreement", hostile)
    assert hostile in officer("withdrawals", "show", "W-")
    (listed,) = json.loads(officer("withdrawals", "list", "--json"))
    assert (listed["channel"], listed["requester_role"]) == ("letter", None)
    officer("certificate", "key", key, state=False)
    officer("certificate", "issue", "W-", "--officer", f"{key}.pub", "--out", str(out))
    (bundle,) = out.iterdir()
    request = json.loads((bundle / "request.json").read_bytes())
    signed = json.loads((bundle / "certificate.json").read_bytes())["predicate"]["request"]
    assert request.items() >= signed.items()
    assert (signed["channel"], signed["agreement"], signed["identity_check"]) == (
        "letter",
        hostile,
        "call-back",
    )
    assert signed["not_recorded"] == ["what the requester is to the site"]
    # A name that should not have been typed there, and was corrected, is in none of the files.
    assert not [path for path in bundle.rglob("*.*") if b"Jane Doe" in path.read_bytes()]
    page = (bundle / "certificate.html").read_text()
    assert "called back at a number that was on record before" in page
    assert "&lt;b&gt;DUA" in page
    assert "<b>DUA" not in page
    assert "put on record how it came in" in page


def test_the_officers_key_is_not_replaced_unasked(officer: Officer, tmp_path: Path) -> None:
    """Another key is refused; the one kept, and the one that replaces it on demand, are in the ledger."""
    ids = []
    for name in ("first", "second"):
        officer("certificate", "key", str(tmp_path / name), state=False)
        ids.append(load_public_key(tmp_path / f"{name}.pub").key_id)
    issue = ("certificate", "issue", "W-", "--out", str(tmp_path / "out"), "--officer")
    officer("withdrawals", "refuse", "W-", "--reason", "manifestly unfounded")
    officer(*issue, str(tmp_path / "first.pub"))
    assert "another one" in officer(*issue, str(tmp_path / "second.pub"), status=1)
    assert load_public_key(officer.path / "state" / OFFICER).key_id == ids[0]
    officer(*issue, str(tmp_path / "second.pub"), "--replace-officer", "--by", "Ada")
    assert load_public_key(officer.path / "state" / OFFICER).key_id == ids[1]
    with StateDirectory.open(officer.path / "state", url="", writable=False) as state:
        bodies = [entry.body for entry in Ledger(state).entries(kinds=["officer-key"])]
        terms = [term for term in signing_terms(state) if term.role == "privacy_officer"]
    assert [(body["key"], body["replaced"], body["by"]) for body in bodies] == [
        (ids[0], None, "person"),
        (ids[1], ids[0], "person"),
    ]
    assert [term.key and term.key.key_id for term in terms] == ids
    assert (terms[0].last, terms[1].last) == (terms[1].first, None)


def test_a_certificate_taken_back_in_time_holds_after_the_officers_key_is_replaced(
    officer: Officer, tmp_path: Path
) -> None:
    """Accepted before: it holds, and accepting it again changes nothing. Brought later: refused, and why."""
    officer("withdrawals", "refuse", "W-", "--reason", "manifestly unfounded")
    for name in ("first", "second"):
        officer("certificate", "key", str(tmp_path / name), state=False)
    issue = ("certificate", "issue", "W-", "--out")
    files = []
    for name in ("taken", "late"):
        out = tmp_path / name
        officer(*issue, str(out), "--officer", str(tmp_path / "first.pub"))
        (bundle,) = out.iterdir()
        officer("certificate", "countersign", str(bundle), "--key", str(tmp_path / "first"), state=False)
        files.append(bundle / "certificate.dsse.json")
    assert "signed by operator and privacy officer" in officer("certificate", "accept", str(files[0]))
    officer(*issue, str(tmp_path / "new"), "--officer", str(tmp_path / "second.pub"), "--replace-officer")
    officer("ledger", "key", "--replace")
    assert "signed by operator and privacy officer" in officer("certificate", "accept", str(files[0]))
    said = officer("certificate", "accept", str(files[1]), status=1)
    assert "privacy officer's key" in said
    assert "was replaced on" in said
    with StateDirectory.open(officer.path / "state", url="", writable=False) as state:
        acts = [e.body["act"] for e in Ledger(state).entries(["withdrawal-act"])]
        assert verify_here(state, files[0].read_bytes()).outcome == "refused"
    assert (acts.count("certificate"), acts.count("countersigned")) == (3, 1)


def test_hostile_words_do_not_become_markup(officer: Officer, tmp_path: Path) -> None:
    """What somebody wrote is shown as text, on the terminal and on the page."""
    key, out = str(tmp_path / "officer"), tmp_path / "out"
    officer("withdrawals", "refuse", "W-", "--reason", "<script>alert(1)</script> [red]x[/red] [/]")
    assert "[red]x[/red] [/]" in officer("withdrawals", "show", "W-").replace("\n", " ")
    officer("certificate", "key", key, state=False)
    officer("certificate", "issue", "W-", "--officer", f"{key}.pub", "--out", str(out))
    (page,) = out.glob("*/certificate.html")
    assert "<script" not in page.read_text()
    assert "&lt;script&gt;" in page.read_text()


def test_the_record_of_processing_is_written(officer: Officer) -> None:
    """As Markdown to a file, which counts the open fields, and as JSON."""
    file = officer.path / "record.md"
    assert "fields are the organisation's" in officer("record", "--out", str(file))
    assert "TO BE FILLED IN BY THE ORGANISATION" in file.read_text()
    assert json.loads(officer("record", "--format", "json"))["sections"]
