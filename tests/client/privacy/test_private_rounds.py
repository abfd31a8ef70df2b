"""A site that trains under differential privacy: what it answers, spends and refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message

from client.privacy.accounting import Mechanism, epsilon_spent
from client.privacy.ledger import Expense, PrivacyLedger, PrivacyLedgerError
from reconsent.config import ConsortiumConfig, dump_consortium
from reconsent.files import sync_directory
from strategies import messages as msg
from strategies.gaussian_mechanism import epsilon_of
from tests.client.hospital import Hospital

SAMPLE = {"mode": "sample", "noise-multiplier": 2.0, "sample-rate": 0.5, "ceiling": 100.0}
SITE = {"mode": "site", "site-noise-multiplier": 1.5, "site-clip": 0.02, "site-ceiling": 100.0}


def configured(hospital: Hospital, privacy: Mapping[str, Any]) -> None:
    """Give the consortium a ``[privacy]`` table."""
    table = hospital.consortium.model_dump(mode="json", by_alias=True, exclude_none=True)
    hospital.consortium = ConsortiumConfig.model_validate({**table, "privacy": dict(privacy)})
    hospital.file = hospital.root / f"consortium-{len(list(hospital.root.iterdir()))}.toml"
    hospital.file.write_text(dump_consortium(hospital.consortium))


def train(hospital: Hospital, model: ArrayRecord, **config: Any) -> Message:
    """The answer to a training message, with a ledger at the site."""
    node = {"ledgers": str(hospital.root / "privacy")}
    return hospital.ask("train", arrays=model, config=config, node=node)


def ledger(hospital: Hospital) -> PrivacyLedger:
    """The site's ledger."""
    return PrivacyLedger(hospital.root / "privacy" / "two--north.jsonl")


def update_norm(reply: Message, model: ArrayRecord) -> float:
    """Norm of what the site sent minus what it was sent."""
    assert not reply.has_error(), reply.error
    record = msg.arrays_of(reply)
    assert record is not None
    after, before = msg.named_arrays(record), msg.named_arrays(model)
    return math.sqrt(sum(float(((after[n] - before[n]).astype(float) ** 2).sum()) for n in after))


def test_spending_grows_from_round_to_round(hospital: Hospital, model: ArrayRecord) -> None:
    """Each round is in the ledger, and the ε that the server is told is that of all of them together."""
    configured(hospital, SAMPLE)
    told = [msg.metrics_of(train(hospital, model, **{msg.SERVER_ROUND: t})) for t in (1, 2, 3)]
    epsilons = [metrics[msg.EPSILON["patient"]] for metrics in told]
    assert 0 < epsilons[0] < epsilons[1] < epsilons[2]
    assert told[0][msg.EPSILON_CEILING] == 100
    assert [expense.round for expense in ledger(hospital).expenses()] == [1, 2, 3]
    assert {expense.steps for expense in ledger(hospital).expenses()} == {2}, "one epoch at rate 0.5"


def test_no_loss_leaves_the_site(hospital: Hospital, model: ArrayRecord) -> None:
    """A private round tells no training loss, which would be released without noise."""
    configured(hospital, SAMPLE)
    assert msg.TRAIN_LOSS not in msg.metrics_of(train(hospital, model))


def test_loss_for_the_gate_is_of_test_patients(hospital: Hospital, model: ArrayRecord) -> None:
    """Under privacy the watching of an unlearning uses no training patient."""
    plain = msg.metrics_of(hospital.ask("evaluate", arrays=model, config={msg.SPLIT: msg.SPLIT_GATE}))
    configured(hospital, SAMPLE)
    private = msg.metrics_of(hospital.ask("evaluate", arrays=model, config={msg.SPLIT: msg.SPLIT_GATE}))
    assert (plain[msg.NUM_EXAMPLES], private[msg.NUM_EXAMPLES]) == (6, 2)


def test_site_beyond_its_ceiling_sits_out(hospital: Hospital, model: ArrayRecord) -> None:
    """The round that would pass the ceiling is refused with the reason, trains nothing and spends nothing."""
    configured(hospital, {**SAMPLE, "ceiling": 2.9})
    replies = [train(hospital, model) for _ in range(6)]
    refused = [reply for reply in replies if reply.has_error()]
    assert 0 < len(refused) < 6
    for reply in refused:
        assert (reply.error.reason or "").startswith(f"{msg.REFUSED_BY_SITE}: {msg.BUDGET_SPENT}: ")
        assert "ceiling of 2.9" in (reply.error.reason or "")
    assert len(ledger(hospital).expenses()) == 6 - len(refused)


def test_own_ceiling_is_below_that_of_the_consortium(hospital: Hospital, model: ArrayRecord) -> None:
    """The site's policy limits its spending, whatever the consortium's file allows."""
    configured(hospital, SAMPLE)
    hospital.policy.write_text("max-epsilon = 0.01\n")
    node = {"policy": str(hospital.policy)}
    reply = hospital.ask("train", arrays=model, node=node)
    assert msg.BUDGET_SPENT in (reply.error.reason or "")
    assert not (hospital.root / "privacy" / "two--north.jsonl").read_text()


def test_site_with_a_limit_does_not_train_without_privacy(hospital: Hospital, model: ArrayRecord) -> None:
    """A policy with a limit refuses rounds that have no privacy at all."""
    hospital.policy.write_text("max-epsilon = 8.0\n")
    reply = hospital.ask("train", arrays=model, node={"policy": str(hospital.policy)})
    assert (reply.error.reason or "").startswith(f"{msg.REFUSED_BY_SITE}: {msg.BUDGET_SPENT}: ")


def test_site_does_not_train_under_a_larger_delta(hospital: Hospital, model: ArrayRecord) -> None:
    """Under δ = 1e-5 a site that allows 1e-6 sits out and spends nothing; one that allows 1e-5 trains."""
    configured(hospital, SAMPLE)
    node = {"policy": str(hospital.policy), "ledgers": str(hospital.root / "privacy")}
    hospital.policy.write_text("max-delta = 1e-6\n")
    refused = hospital.ask("train", arrays=model, node=node)
    assert (refused.error.reason or "").startswith(f"{msg.REFUSED_BY_SITE}: {msg.BUDGET_SPENT}: ")
    assert "a δ of 1e-06 at most" in (refused.error.reason or "")
    assert not ledger(hospital).expenses()
    hospital.policy.write_text("max-delta = 1e-5\n")
    assert not hospital.ask("train", arrays=model, node=node).has_error()
    assert len(ledger(hospital).expenses()) == 1


def test_privacy_cannot_be_switched_off_later(hospital: Hospital, model: ArrayRecord) -> None:
    """A site that has trained with privacy refuses to train without, under the same name."""
    configured(hospital, SAMPLE)
    assert not train(hospital, model).has_error()
    configured(hospital, {})
    assert msg.BUDGET_SPENT in (train(hospital, model).error.reason or "")


def test_unlearning_rounds_spend_too(hospital: Hospital, model: ArrayRecord) -> None:
    """A round of twice the effort spends as much as two rounds."""
    configured(hospital, SAMPLE)
    for _ in range(2):
        last = msg.metrics_of(train(hospital, model))
    ledger(hospital).path.unlink()
    double = msg.metrics_of(train(hospital, model, **{msg.EFFORT: 2}))
    assert double[msg.EPSILON["patient"]] == last[msg.EPSILON["patient"]]


def test_ledger_is_written_before_the_work(
    hospital: Hospital, model: ArrayRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that dies in the middle has been paid for."""
    configured(hospital, SAMPLE)

    def dies(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("client.privacy.round.train_privately", dies)
    assert train(hospital, model).has_error()
    assert len(ledger(hospital).expenses()) == 1


def test_without_a_ledger_there_is_no_training(hospital: Hospital, model: ArrayRecord) -> None:
    """A site that has nowhere to write down what it spends does not train under privacy."""
    configured(hospital, SAMPLE)
    assert PrivacyLedgerError.__name__ in (hospital.ask("train", arrays=model).error.reason or "")


@pytest.mark.parametrize("keep", [[0, 2], [1, 2], [0, 1, 1, 2]])
def test_ledger_with_a_missing_line_is_refused(
    hospital: Hospital, model: ArrayRecord, keep: list[int]
) -> None:
    """A ledger from which a line was taken, or in which one stands twice, is not used."""
    configured(hospital, SAMPLE)
    for _ in range(3):
        train(hospital, model)
    path = ledger(hospital).path
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[i] for i in keep))
    assert PrivacyLedgerError.__name__ in (train(hospital, model).error.reason or "")


def test_torn_line_was_never_spent(hospital: Hospital, model: ArrayRecord) -> None:
    """What a power cut left of a line is passed over, and the next round is counted after it."""
    configured(hospital, SAMPLE)
    train(hospital, model)
    with ledger(hospital).path.open("a") as file:
        file.write('{"number": 2, "at": "20')
    assert len(ledger(hospital).expenses()) == 1
    assert not train(hospital, model).has_error()
    assert [expense.round for expense in ledger(hospital).expenses()] == [3, 3]


def test_noise_of_a_deployment_is_never_the_same(hospital: Hospital, model: ArrayRecord) -> None:
    """A deployed site sends two different models for the same message: nobody can compute its noise."""
    configured(hospital, SAMPLE)
    first, second = (msg.arrays_of(train(hospital, model)) for _ in range(2))
    assert first is not None and second is not None
    a, b = msg.named_arrays(first), msg.named_arrays(second)
    assert any(not np.array_equal(a[name], b[name]) for name in a)


def test_site_level_noise_has_the_size_it_claims(hospital: Hospital, model: ArrayRecord) -> None:
    """The update is at most C long before the noise, whose norm is σC√P within its spread."""
    configured(hospital, SITE)
    reply = train(hospital, model)
    parameters = sum(array.size for array in msg.named_arrays(model).values())
    expected = 0.02 * math.sqrt(1.5**2 * parameters + 1)
    assert update_norm(reply, model) == pytest.approx(expected, rel=0.1)
    assert msg.metrics_of(reply)[msg.EPSILON["site"]] == pytest.approx(epsilon_of([1.5], 1e-5))


def test_noise_at_the_server_leaves_a_clipped_update(hospital: Hospital, model: ArrayRecord) -> None:
    """Where the server adds the noise, the site sends an update of norm C at most, and pays all the same."""
    configured(hospital, {**SITE, "noise-at": "server"})
    reply = train(hospital, model)
    assert update_norm(reply, model) == pytest.approx(0.02, rel=1e-3)
    assert len(ledger(hospital).expenses()) == 1


def test_both_have_an_epsilon_each(hospital: Hospital, model: ArrayRecord) -> None:
    """With DP-SGD and site-level noise together the site tells both ε."""
    configured(hospital, {**SITE, **SAMPLE, "mode": "both"})
    metrics = msg.metrics_of(train(hospital, model))
    assert metrics[msg.EPSILON["patient"]] > 0
    assert metrics[msg.EPSILON["site"]] > 0


def test_ledger_holds_figures_only(hospital: Hospital, model: ArrayRecord) -> None:
    """No patient, file or path is in the ledger, which a site may show to an auditor."""
    configured(hospital, SAMPLE)
    train(hospital, model)
    text = ledger(hospital).path.read_text()
    assert not any(name in text for name in ("p-0", "p-1", "p-2", "p-3", str(hospital.root)))
    entry = json.loads(text)
    assert entry["unit"] == "patient"
    assert ledger(hospital).path.stat().st_mode & 0o777 == 0o600


def renamed(hospital: Hospital, name: str, privacy: Mapping[str, Any] = SAMPLE) -> None:
    """The same site in a consortium of another name."""
    hospital.consortium = hospital.consortium.model_copy(update={"name": name})
    configured(hospital, privacy)


def test_ceiling_of_a_consortium_is_its_own_and_the_policys_is_for_all(
    hospital: Hospital, model: ArrayRecord
) -> None:
    """In a consortium of another name the file's ceiling begins anew; the policy's limit does not.

    A limit of the policy protects the patient, who is in both: another name in the consortium's file, which
    is the operator's to choose, must not give anything back.
    """
    node = {"ledgers": str(hospital.root / "privacy")}
    with_limit = {**node, "policy": str(hospital.policy)}
    once, twice = (epsilon_spent([Mechanism(2.0, 0.5, 2)] * times, 1e-5) for times in (1, 2))
    configured(hospital, {**SAMPLE, "ceiling": (once + twice) / 2})
    assert not hospital.ask("train", arrays=model, node=node).has_error()
    renamed(hospital, "three", {**SAMPLE, "ceiling": (once + twice) / 2})
    hospital.policy.write_text(f"max-epsilon = {(once + twice) / 2}\n")
    refused = hospital.ask("train", arrays=model, node=with_limit).error.reason or ""
    assert refused.startswith(f"{msg.REFUSED_BY_SITE}: {msg.BUDGET_SPENT}: ")
    assert f"ε = {twice:.4g} on a patient in all its consortia together" in refused
    assert f"{once:.4g} is spent" in refused
    three = PrivacyLedger(hospital.root / "privacy" / "three--north.jsonl")
    assert not three.expenses()
    assert not hospital.ask("train", arrays=model, node=node).has_error(), "there is no limit but the file's"
    assert len(ledger(hospital).expenses()) == len(three.expenses()) == 1
    hospital.policy.write_text(f"max-epsilon = {2 * twice}\n")
    renamed(hospital, "four", {**SAMPLE, "unit": "slice"})
    hospital.policy.write_text(f'max-epsilon = {9 * twice}\nunit = "slice"\n')
    mixed = hospital.ask("train", arrays=model, node=with_limit).error.reason or ""
    assert "in another one it has trained by DP-SGD by patient" in mixed
    hospital.policy.write_text(f"max-epsilon = {9 * twice}\n")
    renamed(hospital, "five")
    assert not hospital.ask("train", arrays=model, node=with_limit).has_error()


def test_noise_of_the_server_is_not_counted_as_the_sites_own(hospital: Hospital, model: ArrayRecord) -> None:
    """Rounds whose noise the server added cover nothing towards it: they are in no ε of the site's own noise.

    Neither under the same name, once the consortium's file has ``noise-at = "site"``, nor under another one,
    unless the policy trusts the server.
    """
    node = {"ledgers": str(hospital.root / "privacy"), "policy": str(hospital.policy)}

    def refused() -> str:
        return hospital.ask("train", arrays=model, node=node).error.reason or ""

    configured(hospital, {**SITE, "noise-at": "server"})
    assert not train(hospital, model).has_error()
    configured(hospital, SITE)
    mixed = train(hospital, model).error.reason or ""
    assert "counts noise on whole updates, added by the server, and" in mixed
    assert [expense.at_server for expense in ledger(hospital).expenses()] == [True]
    renamed(hospital, "three", SITE)
    hospital.policy.write_text("max-site-epsilon = 100.0\n")
    assert "trained by noise on whole updates, added by the server" in refused()
    hospital.policy.write_text("max-site-epsilon = 100.0\ntrust-server = true\n")
    assert not hospital.ask("train", arrays=model, node=node).has_error()


def test_ledger_of_an_earlier_release_goes_on(hospital: Hospital, model: ArrayRecord) -> None:
    """A line that does not say who added the noise is taken for either; all that it spent is counted."""
    configured(hospital, {**SITE, "noise-at": "server"})
    assert not train(hospital, model).has_error()
    entry = json.loads(ledger(hospital).path.read_text())
    del entry["at_server"]
    ledger(hospital).path.write_text(json.dumps(entry) + "\n")
    told = msg.metrics_of(train(hospital, model))
    assert told[msg.EPSILON["site"]] == pytest.approx(epsilon_of([1.5, 1.5], 1e-5))


@pytest.mark.parametrize("loss", ["cut", "deleted", "moved"])
def test_ledger_shorter_than_the_log_says_is_refused(
    hospital: Hospital, model: ArrayRecord, loss: str
) -> None:
    """A ledger without its end, or none, gives nothing back while the log stands; a new log accepts it."""
    configured(hospital, SAMPLE)
    node = {"ledgers": str(hospital.root / "privacy"), "log": str(hospital.log)}

    def trains() -> str:
        reply = hospital.ask("train", arrays=model, node=node)
        return (reply.error.reason or "failed") if reply.has_error() else ""

    assert [trains(), trains()] == ["", ""]
    assert [e["number"] for e in hospital.entries() if e["event"] == "paid"] == [1, 2]
    path = ledger(hospital).path
    if loss == "cut":
        path.write_text(path.read_text().splitlines(keepends=True)[0])
    elif loss == "deleted":
        path.unlink()
    else:
        path.rename(path.with_name("elsewhere.jsonl"))
    assert PrivacyLedgerError.__name__ in trains()
    configured(hospital, {})
    assert PrivacyLedgerError.__name__ in trains(), "nor without privacy"
    configured(hospital, SAMPLE)
    hospital.log.rename(hospital.log.with_suffix(".old"))
    assert trains() == ""


def test_directory_of_ledgers_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each directory that is made for the ledger the entry is on the disk before anything is spent."""
    flushed: list[Path] = []

    def noted(directory: Path) -> None:
        flushed.append(directory)
        sync_directory(directory)

    monkeypatch.setattr("client.privacy.ledger.sync_directory", noted)
    PrivacyLedger(tmp_path / "a" / "b" / "two--north.jsonl").spend(Expense("patient"), lambda _: None)
    assert set(flushed) == {tmp_path, tmp_path / "a"}
