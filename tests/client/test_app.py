"""The ClientApp: what it answers, and what it does not need for that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from flwr.app import ArrayRecord, Message

from client.site import identify_site
from reconsent.errors import ModelError
from strategies import messages as msg
from tests.client.hospital import Hospital

ROOT = Path(__file__).parents[2]

IDENTIFY = """
import sys
from pathlib import Path
from tests.client.hospital import Hospital
reply = Hospital(Path(sys.argv[1])).ask("query.identify")
assert reply.content.config_records["config"]["num-examples"] == 6, reply
loaded = [name for name in ("torch", "fastmri", "sqlalchemy") if name in sys.modules]
sys.exit(f"imported {loaded}" if loaded else 0)
"""


def parameters(reply: Message) -> dict[str, np.ndarray]:
    """The arrays of a reply."""
    assert not reply.has_error(), reply.error
    record = msg.arrays_of(reply)
    assert record is not None
    return msg.named_arrays(record)


def test_identify_needs_no_torch(hospital: Hospital) -> None:
    """A process that only says who the site is has imported neither torch nor what needs it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", IDENTIFY, str(hospital.root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_slices_by_headers_are_those_of_the_dataset(hospital: Hospital) -> None:
    """The number a site says of itself is that of the slices it trains on."""
    site = identify_site({"site": "north"}, {"consortium": str(hospital.file)}, {})
    assert site.training_slices() == len(site.dataset("train")) == 6


def test_measuring_the_incoming_model_changes_no_bit(hospital: Hospital, model: ArrayRecord) -> None:
    """A train reply has the same parameters and loss with and without the figures of the incoming model."""
    plain = hospital.ask("train", arrays=model)
    fused = hospital.ask("train", arrays=model, config={msg.EVALUATE_INCOMING: True})
    first, second = parameters(plain), parameters(fused)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(not np.array_equal(first[name], msg.named_arrays(model)[name]) for name in first)
    assert msg.metrics_of(plain)[msg.TRAIN_LOSS] == msg.metrics_of(fused)[msg.TRAIN_LOSS]
    assert msg.PSNR not in msg.metrics_of(plain)


def test_incoming_figures_are_those_of_an_evaluation(hospital: Hospital, model: ArrayRecord) -> None:
    """PSNR, SSIM and NMSE in a train reply are what an evaluate message for the same model gives."""
    apart = msg.metrics_of(hospital.ask("evaluate", arrays=model, config={msg.SPLIT: msg.SPLIT_TEST}))
    fused = msg.metrics_of(hospital.ask("train", arrays=model, config={msg.EVALUATE_INCOMING: True}))
    assert {key: fused[key] for key in (msg.PSNR, msg.SSIM, msg.NMSE)} == {
        key: apart[key] for key in (msg.PSNR, msg.SSIM, msg.NMSE)
    }
    assert fused[msg.TEST_EXAMPLES] == apart[msg.NUM_EXAMPLES] == 2
    assert fused[msg.NUM_EXAMPLES] == 6
    assert fused[msg.EVALUATION_SECONDS] > 0


def test_incoming_model_that_cannot_be_measured(hospital: Hospital, model: ArrayRecord) -> None:
    """A site whose test patients fail trains all the same, and leaves the figures out."""
    site = identify_site({"site": "north"}, {"consortium": str(hospital.file)}, {})
    (patient,) = site.split().test
    path = hospital.data / f"{patient}.h5"
    with h5py.File(path, "a") as file:
        file["kspace"][0, 0, 3, 3] = np.nan
    reply = hospital.ask("train", arrays=model, config={msg.EVALUATE_INCOMING: True})
    assert parameters(reply)
    assert msg.PSNR not in msg.metrics_of(reply)


def test_model_of_another_consortium(hospital: Hospital) -> None:
    """A model that is not the consortium's is an error reply that says so, not a reply."""
    reply = hospital.ask("train", arrays=msg.array_record({"w": np.zeros(3, np.float32)}))
    assert reply.has_error()
    assert (reply.error.reason or "").startswith(f"{msg.FAILED_AT_SITE}: {ModelError.__name__}")


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_no_model(hospital: Hospital, kind: str) -> None:
    """A message without a model is answered by an error that says so."""
    assert "carries no model" in (hospital.ask(kind).error.reason or "")
