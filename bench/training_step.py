"""How fast this machine is: a training step of the default consortium's network, ours and fastMRI's own.

    python -m bench.training_step [--steps 15]

A VarNet of 3 cascades and 8 channels on a batch of 4 slices of 64 × 64 pixels and 4 coils, one thread:
forward, 1 − SSIM, backward, Adam. Printed is the median in seconds. Durations elsewhere in the documentation
stand beside what this printed there, so that they can be carried over to another machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from fastmri import SSIMLoss
from fastmri.models import VarNet

from client.training import adam, batch_loss
from mri.batch import Batch
from mri.reconstructors import build_reconstructor
from reconsent.config import load_consortium

SLICES, COILS, PIXELS = 4, 4, 64
LOW_FREQUENCIES = 6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=15, help="of each kind")
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    batch = noise()
    print(f"fastMRI's own: {median(stock(batch), steps):.3f} s a step")
    print(f"ours:          {median(ours(batch), steps):.3f} s a step")


def noise() -> Batch:
    """A batch of numbers without a meaning: every number takes as long."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(SLICES, 1, 1, PIXELS, 1, dtype=torch.bool)
    mask[..., ::4, :] = True
    centre = (PIXELS - LOW_FREQUENCIES) // 2
    mask[..., centre : centre + LOW_FREQUENCIES, :] = True
    kspace = torch.randn(SLICES, COILS, PIXELS, PIXELS, 2, generator=generator)
    names = tuple(str(number) for number in range(SLICES))
    return Batch(
        masked_kspace=kspace * mask,
        mask=mask,
        num_low_frequencies=LOW_FREQUENCIES,
        target=torch.rand(SLICES, PIXELS, PIXELS, generator=generator),
        data_range=torch.ones(SLICES),
        volumes=names,
        patients=names,
        slices=tuple(range(SLICES)),
    )


def ours(batch: Batch) -> Callable[[], None]:
    """A step as a site takes it."""
    consortium = load_consortium("demo")
    model = build_reconstructor(consortium.model, seed=0)
    optimiser = adam(list(model.parameters()), consortium.training, consortium.training.learning_rate)
    return lambda: step(optimiser, lambda: batch_loss(model, batch, 0.0))


def stock(batch: Batch) -> Callable[[], None]:
    """The same network and loss from fastMRI, with torch's Adam as it comes."""
    model = VarNet(num_cascades=3, sens_chans=4, sens_pools=3, chans=8, pools=3)
    optimiser, loss = torch.optim.Adam(model.parameters(), lr=1e-3), SSIMLoss()

    def of_batch() -> torch.Tensor:
        found: torch.Tensor = loss(
            model(batch.masked_kspace, batch.mask)[:, None], batch.target[:, None], batch.data_range
        )
        return found

    return lambda: step(optimiser, of_batch)


def step(optimiser: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
    """Forward, backward, and the optimiser's step."""
    optimiser.zero_grad(set_to_none=True)
    loss().backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def median(take: Callable[[], None], steps: int) -> float:
    """Seconds a step; the first two warm up."""
    seconds = []
    for _ in range(steps + 2):
        began = time.perf_counter()
        take()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


if __name__ == "__main__":
    main()
