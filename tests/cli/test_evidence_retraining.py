"""Training outside Flower gives what the consortium's own training gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from cli.consortium_data import prepare_data
from cli.evidence.collect import taking_part
from cli.evidence.retraining import cached_update, federate, flattened
from cli.run_directory import RunDirectory
from client.site import Site
from client.work import train
from reconsent.config import ConsortiumConfig, load_consortium, parse_consortium
from strategies import messages as msg


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ConsortiumConfig]:
    """A consortium file with its phantoms made."""
    with pytest.MonkeyPatch.context() as patch:
        directory = RunDirectory(tmp_path_factory.mktemp("run"))
        table = load_consortium("tiny").model_dump(mode="python", by_alias=True)
        consortium = parse_consortium(table, where="test", base=Path())
        directory.prepare(consortium)
        for name, value in environment(directory).items():
            patch.setenv(name, value)
        prepare_data(consortium, lambda *_: None)
        yield str(directory.consortium), consortium


def environment(directory: RunDirectory) -> dict[str, str]:
    """Where the run is, for the processes and for this one."""
    return {
        "RECONSENT_CONSORTIUM": str(directory.consortium.resolve()),
        "RECONSENT_PHANTOMS": str(directory.data.resolve()),
    }


def _client_update(consortium: ConsortiumConfig, name: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    if TaskIdentity._run_id is None:  # Messages can only be made within a run.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    message = Message(
        msg.content(
            arrays=msg.array_record(arrays),
            config={msg.LEARNING_RATE: consortium.training.learning_rate, msg.SERVER_ROUND: 1},
        ),
        dst_node_id=1,
        message_type="train",
    )
    reply = train(Site(consortium, consortium.site(name)), message)
    record = msg.named_arrays(reply.array_records[next(iter(reply.array_records))])
    return flattened({key: record[key] - arrays[key] for key in arrays})


def test_an_update_is_that_of_the_client_bit_for_bit(run: tuple[str, ConsortiumConfig]) -> None:
    """What a site is computed to have sent is what its ClientApp sends."""
    source, consortium = run
    start = federate(source, ["knee"], rounds=0)
    ours = cached_update(source, "knee", start, 1)
    assert np.array_equal(ours, _client_update(consortium, "knee", start))


def test_rounds_are_weighted_averages_of_updates(run: tuple[str, ConsortiumConfig]) -> None:
    """One round moves the model by the mean of the sites' updates, weighted by their slices."""
    source, consortium = run
    start = federate(source, ["brain"], rounds=0)
    after = federate(source, ["brain", "knee"], rounds=1)
    weights = {
        name: len(Site(consortium, consortium.site(name)).dataset("train")) for name in ("brain", "knee")
    }
    expected = sum(
        share / sum(weights.values()) * cached_update(source, name, start, 1)
        for name, share in weights.items()
    )
    assert flattened(after) - flattened(start) == pytest.approx(expected, abs=1e-6)


def test_a_salt_changes_start_and_order(run: tuple[str, ConsortiumConfig]) -> None:
    """Another salt begins elsewhere; the same salt gives the same bits."""
    source, _ = run
    first, again, other = (federate(source, ["brain"], rounds=1, salt=salt) for salt in ("a", "a", "b"))
    assert np.array_equal(flattened(first), flattened(again))
    assert not np.allclose(flattened(first), flattened(other))


def test_patients_can_be_left_out(run: tuple[str, ConsortiumConfig]) -> None:
    """A site trained on other patients gives another update."""
    source, consortium = run
    patients = Site(consortium, consortium.site("knee")).split()
    one = federate(source, ["knee"], rounds=1, patients={"knee": patients.test})
    assert not np.allclose(flattened(one), flattened(federate(source, ["knee"], rounds=1)))


def test_who_takes_part_in_further_training() -> None:
    """Those that stay: without a site that leaves, and with one that only patients leave."""
    config = load_consortium("tiny")
    assert taking_part(config, ["knee"]) == ["brain", "abdomen"]
    (planned,) = config.withdrawals
    patients = planned.model_copy(update={"patients": ("knee-000",)})
    losing = config.model_copy(update={"withdrawals": (patients,)})
    assert taking_part(losing, ["knee"]) == ["brain", "abdomen", "knee"]
