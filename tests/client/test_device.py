"""A site computes where it says; what is not there is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord

from client.device import chosen_device, gpu_share, usable_device
from client.node.command import node_command
from client.node.settings import NodeSettings
from mri.reconstructors import device_of
from reconsent.errors import ConfigError
from tests.client.hospital import Hospital

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def test_the_environment_goes_before_the_node_configuration() -> None:
    """Without either it is the CPU; an empty variable counts as none."""
    assert chosen_device({}, {}) == "cpu"
    assert chosen_device({"device": "cuda:1"}, {"RECONSENT_DEVICE": ""}) == "cuda:1"
    assert chosen_device({"device": "cuda:1"}, {"RECONSENT_DEVICE": "cpu"}) == "cpu"
    assert usable_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["meta", "gpu", "cuda:", "cuda:-1", "cpu; cuda", "CUDA"])
def test_unknown_devices_are_refused(name: str) -> None:
    """Only the CPU and NVIDIA's GPUs: on others PyTorch lacks what a reconstructor needs."""
    with pytest.raises(ConfigError, match="is no device"):
        chosen_device({"device": name}, {})


@NO_GPU
def test_a_gpu_that_is_not_there_is_refused(hospital: Hospital, model: ArrayRecord) -> None:
    """By the check, before a simulation, and for each message that needs it: no silent fall to the CPU."""
    with pytest.raises(ConfigError, match="'cuda:7' is not available: PyTorch sees 0 GPUs"):
        usable_device("cuda:7")
    with pytest.raises(ConfigError, match="not available"):
        gpu_share({"RECONSENT_DEVICE": "cuda"}, 2)
    for kind in ("train", "evaluate"):
        answer = hospital.ask(kind, arrays=model, node={"device": "cuda"})
        assert answer.has_error()
        assert "ConfigError" in answer.error.reason
    assert not hospital.ask("train", arrays=model, node={"device": "cpu"}).has_error()


def test_each_worker_has_a_share_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers fit on one GPU in Ray's units of a ten-thousandth; on the CPU none is asked for."""
    assert gpu_share({}, 3) == 0.0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for workers in range(1, 65):
        units = gpu_share({"RECONSENT_DEVICE": "cuda"}, workers) * 10_000
        assert units == pytest.approx(round(units), abs=1e-6)
        assert 0 < round(units) * workers <= 10_000


def test_the_node_is_told_its_device(tmp_path: Path) -> None:
    """`device` of site.toml is in the node configuration, and the caller's environment cannot undo it."""
    table = {"name": "a", "superlink": "h:9092", "ca": "ca", "key": "key", "consortium": "c.toml"}
    plain = NodeSettings.model_validate(table)
    gpu = NodeSettings.model_validate({**table, "device": "cuda:1"})
    told = node_command(gpu, {"RECONSENT_DEVICE": "cpu"})
    assert "device='cuda:1'" in " ".join(told.arguments)
    assert "RECONSENT_DEVICE" not in told.environment
    assert "device" not in " ".join(node_command(plain, {}).arguments)
    with pytest.raises(ValueError, match="device"):
        NodeSettings.model_validate({**table, "device": "gpu"})


def test_a_model_without_parameters_is_on_the_cpu() -> None:
    """Where a model is, is where its batches go."""
    assert device_of(torch.nn.Identity()) == torch.device("cpu")
    assert device_of(torch.nn.Linear(1, 1, device="meta")) == torch.device("meta")
