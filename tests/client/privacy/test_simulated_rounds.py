"""What only a simulation may do, noise from a seed and a round for nothing, and that nobody else can."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message

import strategies.local_grid
from client.privacy.ledger import PrivacyLedger
from client.privacy.opening import in_simulation
from reconsent.config import ConsortiumConfig
from strategies import messages as msg
from tests.client.hospital import Hospital
from tests.client.privacy.test_private_rounds import SAMPLE, SITE, configured, ledger

COUNTED = {"site": None, "partition-id": 0}


@pytest.fixture
def _engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "strategies.local_grid", strategies.local_grid)


def train(hospital: Hospital, model: ArrayRecord, node: dict[str, Any], **config: Any) -> Message:
    """The answer of a site of which ``node`` says how it was started."""
    node = {"ledgers": str(hospital.root / "privacy"), **node}
    return hospital.ask("train", arrays=model, config=config, node=node)


def weights(reply: Message) -> np.ndarray:
    """All parameters that were sent back."""
    assert not reply.has_error(), reply.error
    record = msg.arrays_of(reply)
    assert record is not None
    return np.concatenate([array.ravel() for _, array in sorted(msg.named_arrays(record).items())])


def test_a_simulated_site_is_counted_and_in_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an engine in the process, or with a name of its own, a site is a real one."""
    for engine in ("ray", "strategies.local_grid"):
        monkeypatch.delitem(sys.modules, engine, raising=False)
    assert not in_simulation({"partition-id": 0})
    monkeypatch.setitem(sys.modules, "ray", strategies.local_grid)
    assert in_simulation({"partition-id": 0})
    assert not in_simulation({"partition-id": 0, "site": "north"})
    assert not in_simulation({"site": "north"})


@pytest.mark.usefixtures("_engine")
def test_the_same_round_again_costs_nothing_and_another_does(hospital: Hospital, model: ArrayRecord) -> None:
    """The same bits are released once; a round of less noise, another clip or another number is paid."""
    configured(hospital, SAMPLE)
    first, again = (weights(train(hospital, model, COUNTED)) for _ in range(2))
    assert np.array_equal(first, again)
    assert len(ledger(hospital).expenses()) == 1
    for paid, change in enumerate(({"noise-multiplier": 1.0}, {"max-grad-norm": 0.5}), start=2):
        configured(hospital, {**SAMPLE, **change})
        assert not np.array_equal(first, weights(train(hospital, model, COUNTED)))
        assert len(ledger(hospital).expenses()) == paid
    configured(hospital, SAMPLE)
    train(hospital, model, COUNTED, **{msg.SERVER_ROUND: 4})
    assert [expense.round for expense in ledger(hospital).expenses()] == [3, 3, 3, 4]


@pytest.mark.usefixtures("_engine")
def test_other_training_under_the_same_noise_is_paid(hospital: Hospital, model: ArrayRecord) -> None:
    """Noise on the whole update is the same whatever was trained: other training is a release of its own."""
    configured(hospital, SITE)
    first = weights(train(hospital, model, COUNTED))
    table = hospital.consortium.model_dump(mode="json", by_alias=True, exclude_none=True)
    table["training"]["local-epochs"] = 2
    hospital.consortium = ConsortiumConfig.model_validate(table)
    configured(hospital, SITE)
    assert not np.array_equal(first, weights(train(hospital, model, COUNTED)))
    assert len(ledger(hospital).expenses()) == 2


@pytest.mark.usefixtures("_engine")
def test_the_oracle_has_an_account_in_a_simulation_only(hospital: Hospital, model: ArrayRecord) -> None:
    """That a round is the oracle's spares a simulated site's account, never a real one's."""
    configured(hospital, SAMPLE)
    oracle = PrivacyLedger(Path(ledger(hospital).path.parent, "two--north--oracle.jsonl"))
    assert not train(hospital, model, COUNTED, **{msg.ACCOUNT: "oracle"}).has_error()
    assert (len(oracle.expenses()), len(ledger(hospital).expenses())) == (1, 0)
    assert not train(hospital, model, {}, **{msg.ACCOUNT: "oracle"}).has_error()
    assert (len(oracle.expenses()), len(ledger(hospital).expenses())) == (1, 1)


@pytest.mark.parametrize("other", [{**SAMPLE, "unit": "slice"}, SITE, {**SAMPLE, **SITE, "mode": "both"}])
def test_another_kind_of_privacy_is_not_added_to_the_first(
    hospital: Hospital, model: ArrayRecord, other: dict[str, Any]
) -> None:
    """Patients and slices, or noise in some rounds only, have no one ε: the round is refused and not paid."""
    configured(hospital, SAMPLE)
    assert not train(hospital, model, {}).has_error()
    configured(hospital, other)
    refused = train(hospital, model, {}).error.reason or ""
    assert refused.startswith(f"{msg.REFUSED_BY_SITE}: {msg.BUDGET_SPENT}: The site's ledger counts DP-SGD")
    assert len(ledger(hospital).expenses()) == 1
