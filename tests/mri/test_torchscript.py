"""A reconstructor in TorchScript: the same images, in a process that has neither Reconsent nor fastMRI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mri.reconstructors import Reconstructor, build_reconstructor
from mri.torchscript import ABOUT, torchscript
from reconsent.config import ReconstructorConfig
from reconsent.errors import ModelError

# Whatever is not PyTorch's own cannot be imported there.
PROGRAM = """
import sys, warnings
OURS = {"mri", "reconsent", "strategies", "unlearning", "client", "server", "cli", "fastmri", "flwr"}
class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OURS:
            raise ImportError(name)
sys.meta_path.insert(0, Closed())
warnings.simplefilter("ignore")
import torch
for name in sys.argv[1:]:
    about = {"reconsent.json": ""}
    network = torch.jit.load(name + ".pt", _extra_files=about)
    for given in ("first", "second"):
        kspace, mask = torch.load(given + ".scan")
        with torch.no_grad():
            torch.save(network(kspace, mask, 8, 40, 36), name + "-" + given + ".out")
    sys.stdout.write(about["reconsent.json"].decode() + "\\n")
"""

CONFIGS = {
    "varnet": ReconstructorConfig(name="varnet", cascades=2, channels=4, pools=2, sensitivity_channels=2),
    "unet": ReconstructorConfig(name="unet", channels=4, pools=2),
}


def trained(config: ReconstructorConfig) -> tuple[Reconstructor, dict[str, np.ndarray]]:
    """A network, and its parameters as a model version holds them."""
    network = build_reconstructor(config, seed=3).eval()
    return network, {name: value.numpy() for name, value in network.state_dict().items()}


def scan(coils: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Undersampled k-space of two slices, and its mask."""
    generator = torch.Generator().manual_seed(coils)
    mask = torch.zeros(2, 1, 1, columns, 1, dtype=torch.bool)
    mask[:, :, :, ::4] = True
    mask[:, :, :, (columns - 8 + 1) // 2 :][:, :, :, :8] = True
    return torch.randn(2, coils, rows, columns, 2, generator=generator) * mask, mask


def test_the_same_images_without_our_packages(tmp_path: Path) -> None:
    """Loaded where nothing of ours can be imported, each gives our images, for other coils and sizes too."""
    networks = {}
    for name, config in CONFIGS.items():
        networks[name], arrays = trained(config)
        (tmp_path / f"{name}.pt").write_bytes(torchscript(config, arrays, f'{{"version": "{name}"}}'))
    scans = {"first": scan(4, 48, 48), "second": scan(2, 64, 56)}
    for which, given in scans.items():
        torch.save(given, tmp_path / f"{which}.scan")
    command = [sys.executable, "-I", "-c", PROGRAM, *CONFIGS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = [f'{{"version": "{name}"}}' for name in CONFIGS]
    assert (done.returncode, done.stdout.splitlines()) == (0, told), done.stderr
    for name, network in networks.items():
        for which, (kspace, mask) in scans.items():
            with torch.no_grad():
                ours = network(kspace, mask, 8, (40, 36))
            theirs = torch.load(tmp_path / f"{name}-{which}.out")
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_parameters_of_another_network_are_refused() -> None:
    """The error says what to do; nothing half filled is written."""
    _, arrays = trained(CONFIGS["unet"])
    with pytest.raises(ModelError, match="consortium file that the model was trained with"):
        torchscript(CONFIGS["varnet"], arrays, ABOUT)
