"""The register in the console: filed as on the command line, decided, and shown as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.console.refusals import KNOWN_DECISIONS
from cli.console.register import DECISIONS
from cli.main import main
from server.names import RUN
from server.persistence import Enrolments, RunProgress, StateDirectory, WithdrawalActs, Withdrawals
from server.residues import note_purge
from tests.cli.console.console_at_work import Visitor, carry_out, entries, hidden_fields, text_of


def records(place: Path) -> list[tuple[str, str]]:
    """Id and state of every withdrawal."""
    with StateDirectory.open(place / "state", url="", writable=False) as state:
        return [(record.id, record.state.value) for record in Withdrawals(state).all()]


def test_a_request_is_filed_once_after_confirmation(officer: Visitor, place: Path) -> None:
    """Nothing before the confirmation; a second click changes nothing; a replay after its end is refused."""
    page = officer.file("delta", request_id="K-17", note="by telephone")
    assert "To be answered by" in text_of(page)
    assert records(place) == []
    first = officer.confirm(page)
    ((id_, state),) = records(place)
    assert (first.headers["location"], state) == (f"/withdrawals/{id_}", "restricted")
    assert "delta is barred from now on" in text_of(officer.get(f"/withdrawals/{id_}"))
    again = officer.confirm(page)
    assert again.headers["location"] == first.headers["location"]
    assert "filed before" in text_of(officer.get(f"/withdrawals/{id_}"))
    assert records(place) == [(id_, state)]
    with StateDirectory.open(place / "state", url="", writable=False) as opened:
        assert Enrolments(opened).valid("delta") is None
        (record,) = Withdrawals(opened).all()
        assert record.request_id == "K-17"
        acts = WithdrawalActs(opened).of(id_, "note")
        notes = [str(act.body["text"]) for act in acts]
    # Who asked did not write what the officer noted.
    assert {act.actor for act in acts} == {"officer"} != {record.requested_by}
    actions = entries(place / "state", "console-action")
    assert [(e["action"], e["subject"], e["outcome"]) for e in actions] == [
        ("withdraw", id_, "done"),
        ("withdraw", id_, "repeated"),
    ]
    # The same number names the request in the answer, in the register and in the ledger.
    assert actions[0]["request"] == first.headers["x-request-id"]
    assert notes[0] == "by telephone"
    assert actions[0]["request"] in notes[1]
    sure = {"reason": "a mistake", "sure": "yes"}
    officer.send(f"/withdrawals/{id_}", f"/withdrawals/{id_}/cancel", sure)
    assert "this is a replay" in text_of(officer.confirm(page, 409))
    assert records(place) == [(id_, "cancelled")]
    last = entries(place / "state", "console-action")[-1]
    assert (last["action"], last["outcome"], last["reason"]) == ("withdraw", "refused", "withdrawal")


def endless() -> Iterator[bytes]:
    """A form with a file that is too large, of which nothing says so beforehand."""
    yield b'--x\r\nContent-Disposition: form-data; name="documents"; filename="sekret"\r\n\r\n'
    for _ in range(11):
        yield b"a" * 2**20


def test_whatever_a_user_tries_in_vain_is_on_record(officer: Visitor, place: Path) -> None:
    """With the kind of the reason, and without a word that was typed; reading is not on record."""
    assert DECISIONS.keys() == KNOWN_DECISIONS
    officer.confirm(officer.file("delta"))
    ((id_, _),) = records(place)
    before = len(entries(place / "state", "console-action"))
    page = f"/withdrawals/{id_}"
    token = officer.hidden(page, f"{page}/note")
    words = {**token, "reason": "sekret words", "text": "", "sure": "yes"}
    post, multipart = officer.client.post, {"content-type": "multipart/form-data; boundary=x"}
    tried = [
        ("note", id_, "withdrawal", post(f"{page}/note", data=words), 409),
        ("release", id_, "withdrawal", post(f"{page}/release", data=words), 409),
        ("decide", id_, "unknown", post(f"{page}/sekret", data=words), 404),
        ("note", None, "withdrawal", post("/withdrawals/sekret/note", data={**words, "text": "x"}), 409),
        ("withdraw", None, "malformed", post("/withdrawals/new", data=words), 400),
        ("withdraw", None, "conflict", post("/withdrawals", data={**token, "draft": "sekret"}), 409),
        ("certificate-countersigned", None, "signature",
         post("/certificates/countersigned", data=words), 400),
        ("officer-key", None, "signature", post("/keys/officer", data=words,
                                               files={"key": ("sekret.pem", b"sekret")}), 400),
        ("model-export", None, "role", post("/models/sekret/export", data=words), 403),
        ("note", id_, "too-large", post(f"{page}/note", content=endless(), headers=multipart), 413),
        ("note", id_, "unreadable", post(f"{page}/note", content=b"sekret",
                                         headers=multipart), 400),
    ]  # fmt: skip
    assert [answer.status_code for *_, answer, _ in tried] == [status for *_, status in tried]
    said = entries(place / "state", "console-action")[before:]
    assert [(e["action"], e["subject"], e["reason"]) for e in said] == [t[:3] for t in tried]
    assert {e["outcome"] for e in said} == {"refused"}
    assert "sekret" not in str(said)
    officer.get("/withdrawals/W-1", 404)
    assert len(entries(place / "state", "console-action")) == before + len(tried)


def test_patients_leave_and_their_site_stays(officer: Visitor, place: Path) -> None:
    """The confirmation says what happens to whom; the site is not barred, and its key stays good."""
    page = officer.file("delta", scope="patients-only", patients="2")
    asked = text_of(page)
    assert "2 patients; they alone are taken out, and the site stays" in asked
    assert "its key is refused" not in asked
    where = officer.confirm(page).headers["location"]
    shown = text_of(officer.get(where))
    assert "delta is to leave them out from now on. The site stays, and its key is good." in shown
    assert "2 patients of the site, which stays" in shown
    assert "(the site is to leave them out since then)" in shown
    assert "is barred" not in shown
    with StateDirectory.open(place / "state", url="", writable=False) as opened:
        (record,) = Withdrawals(opened).all()
        assert (record.scope, record.patients, record.cooperating) == ("patients-only", 2, True)
        assert Enrolments(opened).valid("delta") is not None


@pytest.mark.parametrize("fields", [{"scope": "some"}, {"scope": "patients-only", "patients": ""}])
def test_how_much_must_be_said(officer: Visitor, place: Path, fields: dict[str, str]) -> None:
    """A scope that the form does not have, or no number of patients."""
    asked = {"site": "delta", "reason": "asked", "requested_by": "dpo", **fields}
    answer = officer.send("/withdrawals/new", "/withdrawals/new", asked, status=400)
    assert "the number of patients cannot be read" in text_of(answer)
    both = {**asked, "site": ["gamma", "delta"], "scope": "patients-only", "patients": "2"}
    answer = officer.send("/withdrawals/new", "/withdrawals/new", both, status=400)
    assert "cannot leave by one request" in text_of(answer)
    assert len(re.findall(r'name="scope"[^>]*checked', answer.text)) == 1
    assert records(place) == []


def test_a_request_without_a_number_gets_one(officer: Visitor, place: Path) -> None:
    """So that the same confirmation, sent again later, is known for what it is."""
    page = officer.file("delta")
    officer.confirm(page)
    with StateDirectory.open(place / "state", url="", writable=False) as opened:
        (record,) = Withdrawals(opened).all()
        assert record.request_id is not None
        assert re.fullmatch(r"console-[0-9a-f]{16}", record.request_id)


def test_a_repetition_that_says_more_is_told_that_the_first_stands(
    officer: Visitor, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the console and on the command line: what differs, that it changes nothing, and what would."""
    officer.confirm(officer.file("delta", request_id="K-17", scope="patients", patients="2"))
    ((id_, _),) = records(place)
    officer.confirm(officer.file("delta", request_id="K-18", ground="regulator"))
    shown = text_of(officer.get(f"/withdrawals/{id_}"))
    words = f"The first request, {id_}, stands as it is."
    for part in (words, "scope: site (first: patients)", "ground: regulator (first: ", "withdrawals cancel"):
        assert part in shown
    with pytest.raises(SystemExit):
        main(
            ["withdraw", "delta", "--reason", "another", "--requested-by", "dpo", "--patients", "3",
             "--note", "by telephone", "--note", "by telephone", "--state", str(place / "state")]
        )  # fmt: skip
    said = capsys.readouterr().out
    assert f"This was filed before, as {id_}" in said
    assert words in said
    assert "patients: 3 (first: 2)" in said


def test_a_note_of_a_request_is_kept_once(
    officer: Visitor, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However often it is filed, in the console or on the command line; another note is added."""
    page = officer.file("delta", request_id="K-17", note="by telephone")
    for _ in range(2):
        officer.confirm(page)
    with pytest.raises(SystemExit):
        main(
            ["withdraw", "delta", "--reason", "asked to leave", "--requested-by", "dpo", "--note",
             "by telephone", "--note", " new ", "--note", "new", "--state", str(place / "state")]
        )  # fmt: skip
    assert "This was filed before" in capsys.readouterr().out
    ((id_, _),) = records(place)
    with StateDirectory.open(place / "state", url="", writable=False) as opened:
        notes = [str(act.body["text"]) for act in WithdrawalActs(opened).of(id_, "note")]
    assert [text for text in notes if "console" not in text] == ["by telephone", "new"]


def test_wrong_requests_are_refused_with_what_was_typed(officer: Visitor, place: Path) -> None:
    """An unknown site, a moment to come, hostile names: said in words, everything kept, nothing filed."""
    cases = {
        "no site 'omega'": {"site": "omega"},
        "after now": {"received": "2199-01-01T10:00"},
        "is no moment": {"received": "soon"},
        "U+202E": {"requested_by": "abc\u202etxt.exe"},
        "The reason is empty": {"reason": "  "},
        "number of patients": {"scope": "patients", "patients": "many"},
        "There are: letter": {"channel": "pigeon"},
        "There are: call-back": {"identity_check": "\x1b[2J"},
        "The number of the agreement": {"agreement": "DUA\u202e7"},
        "1 or more": {"scope": "patients", "patients": "0"},
    }
    form = "/withdrawals/new"
    base = {"site": "delta", "scope": "site", "reason": "kept words", "requested_by": "dpo"}
    for words, changes in cases.items():
        answer = officer.send(form, form, {**base, **changes}, status=400)
        assert words in text_of(answer), words
    assert "kept words" in answer.text
    for name in ("a\u202eb.pdf", "x" * 300):
        files = {"documents": (name, b"letter")}
        answer = officer.send(form, form, base, files=files, status=400)
        assert "name of an attached file" in text_of(answer)
    files = {"documents": ("..\\..\\etc/<b>letter</b>.pdf", b"letter")}
    page = officer.send(form, form, base, files=files, status=200)
    assert "&lt;b&gt;letter" not in page.text
    assert "<dd>b&gt;.pdf" in page.text  # the last part of the path, as text
    assert records(place) == []


def test_how_a_request_came_in_is_asked_for_and_can_be_said_later(officer: Visitor, place: Path) -> None:
    """Typed in the form, shown before it is filed, kept, and corrected by a note; as text."""
    page = officer.file("delta", channel="phone", agreement="<i>DUA</i>", requester_role="site")
    assert "by telephone" in text_of(page)
    assert "<i>DUA" not in page.text
    officer.confirm(page)
    ((id_, _),) = records(place)
    shown = officer.get(f"/withdrawals/{id_}")
    assert "Authority checked not said" in text_of(shown)
    assert "<i>DUA" not in shown.text
    fields = {"channel": "letter", "identity_check": "signature"}
    officer.send(f"/withdrawals/{id_}", f"/withdrawals/{id_}/note", fields)
    text = text_of(officer.get(f"/withdrawals/{id_}"))
    assert "Came in by letter" in text
    assert "channel_before: phone" in text
    with StateDirectory.open(place / "state", url="", writable=False) as opened:
        (record,) = Withdrawals(opened).all()
    assert record.intake.table == {
        "channel": "letter",
        "agreement": "<i>DUA</i>",
        "requester_role": "site",
        "identity_check": "signature",
    }


def test_decisions_are_those_of_the_register(officer: Visitor, place: Path) -> None:
    """Extended once, held, released, noted, told; a grave one needs its tick; each is in the ledger."""
    officer.confirm(officer.file("delta"))
    ((id_, _),) = records(place)
    page = f"/withdrawals/{id_}"
    officer.send(page, f"{page}/extend", {"reason": "three sites"})
    assert "extend" not in re.findall(rf'action="{page}/(\w+)"', officer.get(page).text)
    token = hidden_fields(officer.get(page).text, f"{page}/hold")
    officer.send(page, f"{page}/hold", {"reason": "<script>alert(1)</script>", "until": "2030-01-01"})
    twice = officer.client.post(f"{page}/extend", data={**token, "reason": "again"})
    assert (twice.status_code, "extended once" in text_of(twice)) == (409, True)
    shown = officer.get(page).text
    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert(1)" in shown
    officer.send(page, f"{page}/release", {"reason": "over"})
    letter = {"documents": ("letter.pdf", b"content")}
    officer.send(page, f"{page}/note", {"text": "called", "owner": "Grace"}, files=letter)
    officer.send(page, f"{page}/notify", {"recipient": ["site:alpha", "site:beta"], "how": "by mail"})
    bad = officer.client.post(f"{page}/notify", data={**token, "recipient": "Museum", "how": "x"})
    assert bad.status_code == 409
    officer.send(page, f"{page}/refuse", {"reason": "unfounded"}, status=409)
    officer.send(page, f"{page}/refuse", {"reason": "unfounded", "sure": "yes"})
    assert records(place) == [(id_, "refused")]
    text = text_of(officer.get(page))
    assert "Grace" in text
    assert "letter.pdf" in text
    assert "Nothing is left to decide" in text
    said = entries(place / "state", "console-action")
    done = [e["action"] for e in said if e["outcome"] == "done"]
    assert done == ["withdraw", "extend", "hold", "release", "note", "notify", "refuse"]
    failed = [(e["action"], e["subject"], e["reason"]) for e in said if e["outcome"] == "refused"]
    assert failed[-2:] == [("notify", id_, "withdrawal"), ("refuse", id_, "withdrawal")]
    assert "unfounded" not in str(entries(place / "state", "console-action"))


def test_the_console_works_while_a_server_holds_the_state(officer: Visitor, place: Path) -> None:
    """What a run has open is read and written beside it."""
    with StateDirectory.open(place / "state", url=""):
        officer.confirm(officer.file("delta"))
        assert "restricted" in str(records(place))
        officer.get("/")


def test_a_run_whose_server_was_killed_is_not_shown_as_under_way(officer: Visitor, place: Path) -> None:
    """As long as somebody holds the state it is under way; after that it was interrupted."""
    officer.confirm(officer.file("delta"))
    page = f"/withdrawals/{records(place)[0][0]}"
    with StateDirectory.open(place / "state", url="") as state:
        RunProgress(state).put(RUN, {"id": "7", "task": "unlearn", "status": "running", "error": ""})
        assert "A run is under way" in text_of(officer.get(page))
        assert "interrupted" not in text_of(officer.get("/"))
    for shown in (page, "/"):
        assert "run was interrupted" in text_of(officer.get(shown))
        assert "A run is under way" not in text_of(officer.get(shown))


def test_updates_that_the_superlink_may_hold_are_said(officer: Visitor, place: Path) -> None:
    """From the completion of a withdrawal until the SuperLink is emptied, the first page names the site."""
    words = "The SuperLink may still hold updates of delta"
    officer.confirm(officer.file("delta"))
    assert words not in text_of(officer.get("/"))
    carry_out(place, "unlearn")
    assert words in text_of(officer.get("/"))
    with StateDirectory.open(place / "state", url="") as state:
        note_purge(state, 3, 300)
    assert words not in text_of(officer.get("/"))


def test_curves_are_drawn_and_missing_pictures_are_said(officer: Visitor, place: Path) -> None:
    """A line for each site, figures beside them; pictures only where a report has them."""
    page = officer.get("/quality").text
    assert page.count('class="line c0"') >= 2
    assert "from" in re.findall(r"<title id=\"t1\">(.*?)</title>", page, re.DOTALL)[0]
    assert "Images never leave a site" in page
    report = (
        '<section aria-labelledby="h-pictures"><h3>knee: slice 3</h3><figure>'
        '<img src="data:image/png;base64,AAAA" alt="truth"><figcaption>truth</figcaption></figure>'
        '<img src="https://evil.example/x.png" alt="no"></section><img src="data:image/png;base64,BBBB">'
    )
    (place / "report.html").write_text(report)
    page = officer.get("/quality").text
    assert "knee: slice 3" in page
    assert 'src="data:image/png;base64,AAAA"' in page
    assert "evil.example" not in page
    assert "BBBB" not in page
