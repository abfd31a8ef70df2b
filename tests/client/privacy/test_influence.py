"""What one patient can do to a step: bounded by the clipping norm, whoever the patient is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from client.privacy.accounting import Mechanism
from client.privacy.gradients import Gradients, unit_gradient
from client.privacy.optimiser import UnitOptimiser
from client.privacy.training import privatise_update, train_privately
from mri.batch import Batch
from mri.dataset import SiteDataset
from mri.phantoms import synthesise_volume
from reconsent.config import PhantomConfig, TrainingConfig
from reconsent.privacy import PrivacyConfig
from strategies.noise import SeededNoise
from tests.client.privacy.cohort import SAMPLING, batches_of, cohort, network, volumes_of

CLIP = 0.05


class Silence:
    """A source whose noise is zero and that draws everybody: what is left is what the noise must hide."""

    def normal(self, size: int, deviation: float) -> npt.NDArray[np.float32]:
        """Zeros."""
        assert deviation > 0
        return np.zeros(size, np.float32)

    def uniform(self, size: int) -> npt.NDArray[np.float64]:
        """Zeros, below any rate."""
        return np.zeros(size)


def norm(vectors: Sequence[torch.Tensor]) -> float:
    """Of all numbers together."""
    return float(torch.stack([v.norm() for v in vectors]).norm())


def clipped_sum(units: Sequence[Sequence[Batch]], optimiser: UnitOptimiser | None = None) -> Gradients:
    """Of the patients' gradients, before noise, by Opacus' optimiser."""
    model = network("varnet")
    used = optimiser or UnitOptimiser(
        torch.optim.SGD(model.parameters(), lr=1.0),
        noise_multiplier=1.0,
        max_grad_norm=CLIP,
        expected_units=3.0,
        source=SeededNoise(0),
    )
    for batches in units:
        used.add([gradient[None] for gradient in unit_gradient(model, batches, 0.1)])
    total = used.clipped_sum()
    assert total is not None
    return total


def strange(factor: float) -> list[Batch]:
    """A patient unlike any other: targets ``factor`` times as bright as the scanner could make them."""
    return [replace(batch, target=batch.target * factor) for batch in batches_of(2)]


@pytest.mark.parametrize(
    "patient",
    [batches_of(0), batches_of(2), strange(1e3), strange(-50.0), strange(math.inf)],
    ids=["four-slices", "two-slices", "bright", "negative", "infinite"],
)
def test_one_patient_moves_the_sum_by_the_clipping_norm_at_most(patient: list[Batch]) -> None:
    """With or without any one patient, however many slices it has, the sum differs by C or less."""
    others = [batches_of(1)]
    without, with_it = clipped_sum(others), clipped_sum([*others, patient])
    moved = norm([a - b for a, b in zip(with_it, without, strict=True)])
    assert moved <= CLIP * (1 + 1e-5)
    raw = unit_gradient(network("varnet"), patient, 0.1)
    if math.isfinite(norm(raw)):
        assert moved == pytest.approx(min(norm(raw), CLIP), rel=1e-3)
    else:
        assert moved == 0


class Absurd(SiteDataset):
    """A site whose first patient's targets are a thousand times as bright as the scanner could make them."""

    def batches_of(self, slices: Sequence[tuple[str, int]], batch_size: int) -> Iterator[Batch]:
        """Slices of one patient at a time, as they are trained on."""
        factor = 1e3 if slices[0][0].startswith("p-0") else 1.0
        for batch in super().batches_of(slices, batch_size):
            yield replace(batch, target=batch.target * factor)


def whole_step(data: SiteDataset, privacy: PrivacyConfig, *, expected: int) -> list[torch.Tensor]:
    """What a whole step of SGD at rate 1, without noise, adds up of ``expected`` units, of each parameter.

    Of three slices at once, so that a patient's are in several batches.
    """
    model = network("unet")
    before = [p.detach().clone() for p in model.parameters()]
    training, mechanism = TrainingConfig(batch_size=3, l1_weight=0.1), Mechanism(1.0, 1.0, 1)
    train_privately(model, data, training, privacy, mechanism, learning_rate=1.0, seed=1, source=Silence())
    return [(p.detach() - b) * expected for p, b in zip(model.parameters(), before, strict=True)]


@pytest.mark.parametrize("gradients", ["loop", "vmap"])
def test_one_patient_moves_the_training_by_the_clipping_norm_at_most(
    gradients: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole training step, with and without the patient of four slices in two files: C apart at most.

    By the step that is the clipped sum over the expected number (SGD of rate 1), without the noise.
    """
    monkeypatch.setattr("client.privacy.training.adam", lambda p, *_: torch.optim.SGD(p, lr=1.0))
    table = {"mode": "sample", "noise-multiplier": 1.0, "ceiling": 9.0, "gradients": gradients}
    # So little that all are clipped: the loss has a limit on how much a target can pull.
    clip = CLIP / 10
    privacy = PrivacyConfig.model_validate({**table, "max-grad-norm": clip})
    volumes = volumes_of()
    names = [volume.patient for volume in volumes[:3]]
    sums, lengths = [], []
    for patients in (names, names[1:]):
        data = Absurd.from_volumes(volumes, SAMPLING, patients=patients, seed=1, fresh_masks=True)
        units = data.units("patient")
        raw = unit_gradient(network("unet"), list(data.batches_of(units[0], 3)), 0.1)
        lengths.append((len(units[0]), norm(raw)))
        sums.append(whole_step(data, privacy, expected=len(units)))
    assert [slices for slices, _ in lengths] == [4, 2]
    assert all(length > 2 * clip for _, length in lengths), "unclipped, each would be too much"
    moved = norm([a - b for a, b in zip(*sums, strict=True)])
    assert 0.9 * clip < moved <= clip * (1 + 1e-3)


def test_one_slice_moves_the_training_by_the_clipping_norm_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """By slice, one that is bright or empty leaves the others of its volume, and their number, as they are.

    A volume is scaled by its brightest slice, so that this one reaches into all the others elsewhere.
    """
    monkeypatch.setattr("client.privacy.training.adam", lambda p, *_: torch.optim.SGD(p, lr=1.0))
    clip = CLIP / 10
    privacy = PrivacyConfig.model_validate(
        {"mode": "sample", "unit": "slice", "noise-multiplier": 1.0, "ceiling": 9.0, "max-grad-norm": clip}
    )
    whole = synthesise_volume("brain", PhantomConfig(matrix=(32, 32), coils=2, slices=4), seed=0, name="p")
    sums = []
    for factor in (30.0, 0.0):
        kspace, target = whole.kspace.copy(), whole.target.copy()
        kspace[1] *= factor
        target[1] *= factor
        volume = replace(whole, kspace=kspace, target=target)
        data = SiteDataset.from_volumes([volume], SAMPLING, seed=1, fresh_masks=True)
        assert [len(unit) for unit in data.units("slice")] == [1, int(factor > 0), 1, 1]
        sums.append(whole_step(data, privacy, expected=4))
    moved = norm([a - b for a, b in zip(*sums, strict=True)])
    assert 0.9 * clip < moved <= clip * (1 + 1e-3)
    assert norm(sums[1]) > 2 * clip, "the others do pull"


def test_the_bound_was_put_to_the_test() -> None:
    """An ordinary patient's gradient is longer than C, and that of a bright one is not the same."""
    ordinary, bright = (norm(unit_gradient(network("varnet"), p, 0.1)) for p in (batches_of(2), strange(1e3)))
    assert ordinary > CLIP
    assert bright != pytest.approx(ordinary, rel=0.1)


def test_small_gradients_are_left_as_they_are() -> None:
    """A gradient below C is not lengthened."""
    model, patient = network("varnet"), batches_of(1)
    raw = unit_gradient(model, patient, 0.1)
    wide = UnitOptimiser(
        torch.optim.SGD(model.parameters(), lr=1.0),
        noise_multiplier=1.0,
        max_grad_norm=100 * norm(raw),
        expected_units=1.0,
        source=SeededNoise(0),
    )
    assert all(
        torch.allclose(a, b, rtol=1e-6, atol=0)
        for a, b in zip(clipped_sum([patient], wide), raw, strict=True)
    )


@pytest.mark.parametrize("drawn", [0, 2])
def test_a_step_is_the_clipped_sum_plus_noise_over_the_expected_number(drawn: int) -> None:
    """θ moves by −(Σ clip(g) + σC·noise)/E with SGD of rate 1; also if nobody was drawn."""
    weights = torch.nn.Parameter(torch.zeros(2000))
    optimiser = UnitOptimiser(
        torch.optim.SGD([weights], lr=1.0),
        noise_multiplier=2.0,
        max_grad_norm=CLIP,
        expected_units=4.0,
        source=SeededNoise(5),
    )
    gradient = torch.full((2000,), 3.0)
    for _ in range(drawn):
        optimiser.add([gradient[None]])
    optimiser.step()
    noise = SeededNoise(5).normal(2000, 2.0 * CLIP)
    expected = -(drawn * gradient * CLIP / gradient.norm() + torch.from_numpy(noise)) / 4
    assert torch.allclose(weights.detach(), expected, rtol=1e-4, atol=1e-7)
    assert float(np.std(noise)) == pytest.approx(2.0 * CLIP, rel=0.1)


@pytest.mark.parametrize("gradients", ["loop", "vmap"])
def test_training_takes_the_steps_that_were_paid_for(gradients: str) -> None:
    """Both ways of taking gradients train the same model, and it moves."""
    privacy = PrivacyConfig.model_validate(
        {
            "mode": "sample",
            "noise-multiplier": 1.0,
            "ceiling": 9.0,
            "gradients": gradients,
            "max-grad-norm": CLIP,
        }
    )
    model = network("unet")
    before = [p.detach().clone() for p in model.parameters()]
    train_privately(
        model,
        cohort(),
        TrainingConfig(batch_size=4),
        privacy,
        Mechanism(1.0, 1.0, 1),
        learning_rate=1e-2,
        seed=1,
        source=Silence(),
    )
    after = [p.detach() for p in model.parameters()]
    assert norm([a - b for a, b in zip(after, before, strict=True)]) > 0
    # Adam's first step goes by signs: compared with a tolerance where a gradient is all but zero.
    reference = network("unet")
    other = "vmap" if gradients == "loop" else "loop"
    train_privately(
        reference,
        cohort(),
        TrainingConfig(batch_size=4),
        privacy.model_copy(update={"gradients": other}),
        Mechanism(1.0, 1.0, 1),
        learning_rate=1e-2,
        seed=1,
        source=Silence(),
    )
    same = [
        float((a - b.detach()).abs().median()) for a, b in zip(after, reference.parameters(), strict=True)
    ]
    assert max(same) < 1e-5


def test_a_diverged_model_tells_nothing() -> None:
    """A model that gives NaN for every patient gets pure noise as its update; no error tells of the data."""
    model = network("unet")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    privacy = PrivacyConfig.model_validate({"mode": "sample", "noise-multiplier": 1.0, "ceiling": 9.0})
    train_privately(
        model,
        cohort(),
        TrainingConfig(batch_size=4),
        privacy,
        Mechanism(1.0, 1.0, 2),
        learning_rate=1e-2,
        seed=1,
        source=SeededNoise(3),
    )
    assert all(bool(torch.isfinite(p).all()) for p in list(model.parameters())[1:])


def test_site_update_is_no_longer_than_its_clip() -> None:
    """Of the whole site's update nothing beyond C is left before the noise; NaN counts as no update."""
    for value, expected in ((5.0, 0.25), (math.nan, 0.0)):
        model = torch.nn.Linear(30, 2)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with torch.no_grad():
            model.weight.add_(value)
        privatise_update(before, model, clip=0.25, noise_multiplier=0.0, source=SeededNoise(0))
        moved = norm([model.state_dict()[name] - before[name] for name in before])
        assert moved == pytest.approx(expected, rel=1e-4)
