"""The gate on the real ClientApp: what a site's policy forbids is not done, and is said and logged."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from flwr.app import ArrayRecord

from client.code_digest import code_digest
from client.policy import POLICY_VARIABLE
from client.site_log import LOG_VARIABLE
from reconsent.errors import RoundError
from reconsent.log_lines import FORMAT_VARIABLE
from server.persistence.tensors import content_hash
from strategies import messages as msg
from tests.client.hospital import Hospital

TYPES = ("query.identify", "query.initialise", "train", "evaluate")

POLICIES = {
    "": set(TYPES),
    "withdrawn = false": set(TYPES),
    "withdrawn = true": set(),
    "withdrawn = true\nmay-train = true": set(),
    "may-train = false": set(TYPES) - {"train"},
    "may-be-evaluated = false": set(TYPES) - {"evaluate"},
    "may-train = false\nmay-be-evaluated = false": {"query.identify", "query.initialise"},
    f'trusted-code = ["{"0" * 64}"]': set(),
    f'trusted-code = ["{"0" * 64}", "{code_digest()}"]': set(TYPES),
    "max-rounds-a-day = 0": set(TYPES) - {"train"},
    "max-rounds-a-day = 5": set(TYPES),
    "may-trian = false": set(),
    "may-train = ": set(),
    "may-train = 'perhaps'": set(),
    'trusted-code = ["abc"]': set(),
}


@pytest.mark.parametrize("text", POLICIES, ids=lambda text: " ".join(text.split())[:40])
def test_every_message_under_every_policy(text: str, hospital: Hospital, model: ArrayRecord) -> None:
    """Of each kind of message exactly those the policy allows are worked; a malformed policy allows none."""
    hospital.policy.write_text(text)
    node = {"policy": str(hospital.policy), "log": str(hospital.log)}
    for kind in TYPES:
        reply = hospital.ask(kind, arrays=model if "." not in kind else None, node=node)
        last = hospital.entries()[-1]
        assert last["type"] == kind
        if kind in POLICIES[text]:
            assert not reply.has_error(), reply.error
            assert last["event"] == "worked"
        else:
            assert (reply.error.reason or "").startswith(f"{msg.REFUSED_BY_SITE}: {last['reason']}: ")
            assert reply.error.code == 6
            assert str(hospital.root) not in (reply.error.reason or "")
            assert last["event"] == "refused"


def test_refused_work_is_not_begun(hospital: Hospital, model: ArrayRecord) -> None:
    """A refusal comes before the site's data are looked at: it is the same where they are gone."""
    hospital.policy.write_text("may-train = false")
    node = {"policy": str(hospital.policy), "data": str(hospital.root / "gone")}
    assert "refused-by-site: not-allowed" in (
        hospital.ask("train", arrays=model, node=node).error.reason or ""
    )


def test_policy_is_read_anew(hospital: Hospital, model: ArrayRecord) -> None:
    """An officer's edit counts from the next message, in the same process."""
    node = {"policy": str(hospital.policy)}
    for text, refused in (("", False), ("withdrawn = true", True), ("withdrawn = false", False)):
        hospital.policy.write_text(text)
        assert hospital.ask("evaluate", arrays=model, node=node).has_error() is refused


def test_named_policy_that_is_gone(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that is named and not there forbids everything; so does one named by the environment."""
    reason = hospital.ask("query.identify", node={"policy": str(hospital.policy)}).error.reason
    assert (reason or "").startswith("refused-by-site: policy-unreadable: ")
    monkeypatch.setenv(POLICY_VARIABLE, str(hospital.policy))
    assert hospital.ask("query.identify").has_error()


def test_server_cannot_name_a_policy(hospital: Hospital, model: ArrayRecord) -> None:
    """What the server sends in a message does not change which policy counts."""
    hospital.policy.write_text("withdrawn = true")
    other = hospital.root / "other.toml"
    other.write_text("")
    reply = hospital.ask(
        "evaluate", arrays=model, config={"policy": str(other)}, node={"policy": str(hospital.policy)}
    )
    assert reply.has_error()


def test_unknown_kinds_of_message(hospital: Hospital) -> None:
    """A message of a kind that the app does not have is refused or unknown, never worked."""
    with pytest.raises(ValueError, match="No query function"):
        hospital.ask("query.patients")


def test_training_without_evaluation(hospital: Hospital, model: ArrayRecord) -> None:
    """A site that is not to be evaluated trains, and leaves the figures of the incoming model out."""
    hospital.policy.write_text("may-be-evaluated = false")
    node = {"policy": str(hospital.policy)}
    reply = hospital.ask("train", arrays=model, config={msg.EVALUATE_INCOMING: True}, node=node)
    assert not reply.has_error()
    assert msg.PSNR not in msg.metrics_of(reply)
    assert msg.TRAIN_LOSS in msg.metrics_of(reply)


def test_rounds_a_day(hospital: Hospital, model: ArrayRecord) -> None:
    """The limit counts what the log says was trained; other work does not count."""
    hospital.policy.write_text("max-rounds-a-day = 2")
    node = {"policy": str(hospital.policy)}
    beside = hospital.policy.with_suffix(".log.jsonl")
    kinds = ("train", "evaluate", "train", "evaluate", "train")
    refused = [hospital.ask(kind, arrays=model, node=node).has_error() for kind in kinds]
    assert refused == [False, False, False, False, True]
    assert hospital.entries(beside)[-1]["reason"] == "too-many-rounds"


def test_log_says_which_models_and_who_asked(hospital: Hospital, model: ArrayRecord) -> None:
    """Each piece of work has a line before and one after, with the hashes that the server's registry uses."""
    reply = hospital.ask("train", arrays=model, node={"log": str(hospital.log)})
    sent = msg.arrays_of(reply)
    assert sent is not None
    before, after = hospital.entries()
    assert (before["event"], after["event"]) == ("received", "worked")
    for entry in (before, after):
        assert (entry["site"], entry["type"], entry["round"], entry["message"]) == (
            "north",
            "train",
            3,
            "m-1",
        )
        assert entry["model-received"] == content_hash(msg.named_arrays(model))
        assert entry["bytes-received"] == msg.payload_bytes(model)
    assert after["model-sent"] == content_hash(msg.named_arrays(sent)) != after["model-received"]
    assert after["bytes-sent"] == msg.payload_bytes(sent)
    assert after["seconds"] > 0
    assert "model-sent" not in before


def test_log_counts_the_bytes_of_every_model(hospital: Hospital, model: ArrayRecord) -> None:
    """Those of a second model in the message too, and of a message that the policy refuses."""
    node = {"policy": str(hospital.policy), "log": str(hospital.log)}
    for text, event in (("", "worked"), ("may-train = false", "refused")):
        hospital.policy.write_text(text)
        hospital.ask(
            "train", arrays=model, config={msg.TASK: msg.DISTIL}, node=node, extra={msg.TEACHER: model}
        )
        entry = hospital.entries()[-1]
        assert entry["event"] == event
        assert entry["bytes-received"] == 2 * msg.payload_bytes(model)


def test_log_is_private_and_only_grows(
    hospital: Hospital, model: ArrayRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is readable by its owner alone, and each message appends to what was there."""
    monkeypatch.setenv(LOG_VARIABLE, str(hospital.log))
    hospital.ask("query.identify")
    assert stat.S_IMODE(hospital.log.stat().st_mode) == 0o600
    first = hospital.log.read_bytes()
    hospital.ask("evaluate", arrays=model)
    assert hospital.log.read_bytes().startswith(first)
    assert len(hospital.entries()) == 4


def test_log_names_no_patient(hospital: Hospital, model: ArrayRecord) -> None:
    """Neither work nor failure brings a file name or a patient into the log."""
    node = {"log": str(hospital.log)}
    hospital.ask("train", arrays=model, node=node)
    (hospital.data / "p-2.h5").write_bytes(b"no volume")
    assert hospital.ask("query.identify", node=node).has_error()
    text = hospital.log.read_text()
    assert hospital.entries()[-1]["event"] == "failed"
    assert hospital.entries()[-1]["reason"] == "DataError"
    assert "p-" not in text
    assert str(hospital.root) not in text


def test_no_work_without_the_log_that_was_asked_for(hospital: Hospital, model: ArrayRecord) -> None:
    """A log that cannot be written refuses the work, whatever the policy says."""
    hospital.policy.write_text("")
    node = {"policy": str(hospital.policy), "log": str(hospital.root / "no-such-directory" / "log")}
    for kind in TYPES:
        reason = hospital.ask(kind, arrays=model, node=node).error.reason or ""
        assert reason.startswith("refused-by-site: log-unwritable: ")
        assert str(hospital.root) not in reason


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk(hospital: Hospital, model: ArrayRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is a log that cannot be written: nothing is trained."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it trained")

    monkeypatch.setattr("client.work.train_locally", never)
    reason = hospital.ask("train", arrays=model, node={"log": "/dev/full"}).error.reason or ""
    assert reason.startswith("refused-by-site: log-unwritable: ")


def test_disk_that_fills_during_the_work(
    hospital: Hospital, model: ArrayRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the end of the work cannot be logged its result is not sent, and the log holds whole lines only."""
    real, calls = os.write, []

    def fills(descriptor: int, content: bytes) -> int:
        calls.append(descriptor)
        return real(descriptor, content if len(calls) == 1 else content[:10])

    monkeypatch.setattr("client.append_only.os.write", fills)
    reply = hospital.ask("train", arrays=model, node={"log": str(hospital.log)})
    assert (reply.error.reason or "").startswith("refused-by-site: log-unwritable: ")
    assert [entry["event"] for entry in hospital.entries()] == ["received"]


@pytest.mark.parametrize("form", ["human", "json"])
def test_failure_names_no_patient(
    form: str,
    hospital: Hospital,
    model: ArrayRecord,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file with a patient's name that cannot be read fails without it, to the server and in every log."""
    monkeypatch.setenv(FORMAT_VARIABLE, form)
    bad = hospital.data / "Mueller_Anna_19570312.h5"
    bad.write_bytes(b"")
    reasons = [
        hospital.ask(kind, arrays=model, node={"log": str(hospital.log)}).error.reason or ""
        for kind in ("train", "evaluate", "query.identify")
    ]
    said = "".join(capfd.readouterr())
    logged = hospital.log.read_text(encoding="utf-8")
    for secret in ("Mueller", "Anna", "19570312", "p-0", "p-1"):
        assert secret not in said and secret not in logged
    for reason in reasons:
        assert reason.startswith("failed-at-site: DataError: ")
        for secret in ("Mueller", "Anna", "19570312", "scans", str(hospital.root), ".h5"):
            assert secret not in reason
    (reference,) = {reasons[0].rpartition(" ")[2].rstrip(".")}
    assert reference in said and reference in logged and "DataError [" in said


def test_words_of_an_error_come_without_names(
    hospital: Hospital,
    model: ArrayRecord,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the site's names are known the output has an error's words, and dots in the names' place."""

    def fails(*_: object, **__: object) -> None:
        raise OSError("slice 3 of /data/P-1.h5 cannot be read")

    monkeypatch.setattr("client.work.train_locally", fails)
    hospital.ask("train", arrays=model)
    said = capfd.readouterr().err
    assert "slice 3 of /data/…" in said and "p-1" not in said.casefold()


def test_a_wrong_log_format_stops_no_work(
    hospital: Hospital,
    model: ArrayRecord,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A format that does not exist raises nothing: the work is done, and plain lines say what is wrong."""
    monkeypatch.setenv(FORMAT_VARIABLE, "xml")
    assert not hospital.ask("train", arrays=model, node={"log": str(hospital.log)}).has_error()
    said = capfd.readouterr().err
    assert f"{FORMAT_VARIABLE} is 'xml'" in said and "worked" in said
    assert [entry["event"] for entry in hospital.entries()] == ["received", "worked"]


def test_what_fails_before_the_work_is_a_failure_as_well(hospital: Hospital) -> None:
    """A policy that is no file name, so that not even the log's can be made of it, is told by class alone."""
    reason = hospital.ask("query.identify", node={"policy": "/"}).error.reason or ""
    assert reason.startswith("failed-at-site: ValueError") and "empty name" not in reason


def test_both_ends_name_what_the_work_is_for(
    hospital: Hospital,
    model: ArrayRecord,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The correlation of a message stands in the site's log and in its node's lines; no free text does."""
    monkeypatch.setenv(FORMAT_VARIABLE, "json")
    node = {"log": str(hospital.log)}
    assert not hospital.ask("train", arrays=model, config={msg.CORRELATION: "W-1"}, node=node).has_error()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    ours = [line for line in lines if line["logger"] == "reconsent"]
    assert [line["event"] for line in ours] == ["received", "worked"]
    for line in (*ours, *hospital.entries()):
        assert line["correlation"] == "W-1" and line["round"] == 3
        assert line["site"] == "north" and line["type"] == "train" and line["run"] == "1"
    hospital.ask("train", arrays=model, config={msg.CORRELATION: "Anna Mueller\n"}, node=node)
    assert hospital.entries()[-1]["correlation"] is None
    assert "Mueller" not in "".join(capfd.readouterr()) + hospital.log.read_text(encoding="utf-8")


def test_failure_that_is_not_ours(
    hospital: Hospital, model: ArrayRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any other exception the class alone is told."""

    def fails(*_: object, **__: object) -> None:
        raise OSError("cannot read /data/Mueller_Anna.h5")

    monkeypatch.setattr("client.work.train_locally", fails)
    reason = hospital.ask("train", arrays=model).error.reason or ""
    assert reason.startswith("failed-at-site: OSError: the details stay at the site")
    assert "Mueller" not in reason


def test_failure_of_the_arithmetic(
    hospital: Hospital, model: ArrayRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is not finite is told in words, unless they hold one of the site's names."""
    words = "The training loss became nan at step 3."

    def fails(*_: object, **__: object) -> None:
        raise RoundError(words, "Lower the learning rate.")

    monkeypatch.setattr("client.work.train_locally", fails)
    reason = hospital.ask("train", arrays=model).error.reason or ""
    assert reason == f"failed-at-site: RoundError: {words} Lower the learning rate."
    for words in ("It failed on P-1.", "It failed in scans/x.", "It failed on x.dcm."):
        assert words[:9] not in (hospital.ask("train", arrays=model).error.reason or "")
