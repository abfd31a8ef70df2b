"""What methods of unlearning ask of a site: ascent, noisy labels, distillation, a Fisher optimiser."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from client.fisher import FisherDescent
from client.tasks import ascent, distillation, noisy_labels, perform, projection
from client.training import batch_loss, mean_loss
from client.work import _training
from mri.batch import Batch
from reconsent.config import TrainingConfig
from reconsent.errors import RoundError
from strategies import messages as msg
from tests.client.hospital import Hospital
from tests.client.test_training import dataset, model, vector

TRAINING = TrainingConfig(batch_size=2, local_epochs=2)


def batch() -> Batch:
    """The first two slices, under fixed masks."""
    return next(iter(dataset(fresh=False).batches(2, seed=0)))


def told(task: str, **more: Any) -> dict[str, Any]:
    """Configuration of a train message."""
    return {msg.TASK: task, msg.LEARNING_RATE: 1e-3, msg.SERVER_ROUND: 1, **more}


def value(loss: torch.Tensor) -> float:
    """A loss as a number."""
    return float(loss.detach())


def loss_of(network: torch.nn.Module) -> float:
    """Mean loss on the training slices."""
    return mean_loss(network, dataset(fresh=False), TRAINING)[0]


def test_a_fisher_step_divides_by_the_squared_gradient() -> None:
    """With g = (2, 0.1) the first step is η (2/4, 1): the second quotient, 10, is kept within 1."""
    parameter = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    parameter.grad = torch.tensor([2.0, 0.1])
    FisherDescent([parameter], lr=0.1).step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.95, 0.9]))


def test_the_second_fisher_step_averages_both_gradients() -> None:
    """After g = 1 and g = 3: m̂ = (0.09 + 0.3)/0.19, √v̂ = √((0.000999 + 0.081)/0.001999) by hand."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = FisherDescent([parameter], lr=1.0)
    for gradient in (1.0, 3.0):
        before = float(parameter.detach())
        parameter.grad = torch.tensor([gradient])
        optimiser.step()
    expected = (0.09 + 0.3) / 0.19 / np.sqrt((0.000999 + 0.081) / 0.001999)
    assert before - float(parameter.detach()) == pytest.approx(expected, rel=1e-4)


def test_projection_brings_a_model_back_to_the_sphere() -> None:
    """From (0, 0) to (3, 4) with radius 1 is (0.6, 0.8); what is inside stays."""
    layer = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
    project = projection(layer, 1.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0]]))
    project(1)
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[0.6, 0.8]]))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.3, 0.4]]))
    project(2)
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[0.3, 0.4]]))


def test_the_ascent_minimises_minus_the_loss_plus_its_norm() -> None:
    """−J + γ ‖θ‖₁ with an explicit γ, and J alone is what is told."""
    network, slices = model(), batch()
    objective, reported = ascent(0.0, 0.01)(network, slices)
    loss = value(batch_loss(network, slices, 0.0))
    size = value(vector(network).abs().sum())
    assert value(reported) == pytest.approx(loss, rel=1e-6)
    assert value(objective) == pytest.approx(0.01 * size - loss, rel=1e-5)


def test_ascent_raises_the_loss_and_stays_in_its_ball() -> None:
    """Climbing raises the site's loss; within a radius it goes no farther than that."""
    free, bound = model(), model()
    start = vector(free)
    perform(free, dataset(), TRAINING, told(msg.ASCEND), seed=0)
    perform(bound, dataset(), TRAINING, told(msg.ASCEND, radius=0.005), seed=0)
    assert loss_of(free) > loss_of(model())
    assert float((vector(free) - start).norm()) > 0.005
    assert float((vector(bound) - start).norm()) <= 0.005 * (1 + 1e-5)


def test_ascent_by_momentum_ends_when_the_loss_has_grown() -> None:
    """With a ratio just above one it stops after a step or two; without one it takes all."""
    near, far = model(), model()
    start = vector(near)
    fast = {msg.MOMENTUM: 0.9, msg.LEARNING_RATE: 0.05}
    perform(near, dataset(), TRAINING, told(msg.ASCEND, **fast, **{msg.STOP_RATIO: 1.0001}), seed=0)
    perform(far, dataset(), TRAINING, told(msg.ASCEND, **fast), seed=0)
    assert 0 < float((vector(near) - start).norm()) < float((vector(far) - start).norm())


def test_noise_in_labels_is_relative_to_the_volume_and_seeded() -> None:
    """The targets get λ · range · N(0, 1): more noise is a higher loss, and only the same seed repeats it."""
    network, slices = model(), batch()
    losses = [value(noisy_labels(9.0, noise, 1)(network, slices)[0]) for noise in (1e-9, 0.5, 5.0)]
    assert losses[0] == pytest.approx(value(batch_loss(network, slices, 9.0)), abs=1e-4)
    assert losses[0] < losses[1] < losses[2]
    assert losses[1] == value(noisy_labels(9.0, 0.5, 1)(network, slices)[0])
    assert losses[1] != value(noisy_labels(9.0, 0.5, 2)(network, slices)[0])
    # To an image of zeros ten times the targets and ten times their noise are as far.
    louder = dataclasses.replace(slices, target=10 * slices.target, data_range=10 * slices.data_range)
    silent = torch.nn.Module()
    silent.forward = lambda *_: torch.zeros_like(slices.target)  # type: ignore[method-assign]
    same = [value(noisy_labels(1.0, 5.0, 1)(silent, s)[1]) for s in (slices, louder)]
    assert same[0] == pytest.approx(same[1], rel=1e-4)


def test_distillation_uses_no_target() -> None:
    """With targets that are no numbers it still has a loss, which falls towards the teacher's outputs."""
    teacher = model()
    perform(teacher, dataset(), TRAINING, told(msg.ASCEND), seed=0)
    slices = batch()
    blind = dataclasses.replace(
        slices,
        target=torch.full_like(slices.target, float("nan")),
        data_range=torch.full_like(slices.data_range, float("nan")),
    )
    assert torch.isfinite(distillation(teacher, 0.1)(model(), blind)[0])
    assert value(distillation(teacher, 0.0)(teacher, slices)[0]) == pytest.approx(0.0, abs=1e-5)
    student = model()
    before = value(distillation(teacher, 0.0)(student, slices)[0])
    perform(student, dataset(), TRAINING, told(msg.DISTIL), seed=0, teacher=teacher)
    assert value(distillation(teacher, 0.0)(student, slices)[0]) < before


def test_unknown_tasks_are_refused_by_name() -> None:
    """A task that this site does not know, or a distillation without its teacher, is an error."""
    with pytest.raises(RoundError, match="'dance'"):
        perform(model(), dataset(), TRAINING, told("dance"), seed=0)
    with pytest.raises(RoundError, match="without a teacher"):
        perform(model(), dataset(), TRAINING, told(msg.DISTIL), seed=0)


@pytest.mark.parametrize(("effort", "steps"), [(0.5, 4), (0.01, 1), (0.25, 2)])
def test_an_effort_below_one_is_a_share_of_the_steps(effort: float, steps: int) -> None:
    """Two passes over eight slices by twos are eight steps; at least one is left."""
    assert _training(TRAINING, {msg.EFFORT: effort}, slices=8).local_steps == steps
    assert _training(TRAINING, {msg.EFFORT: 3}, slices=8).local_epochs == 6
    assert _training(TRAINING, {msg.GRADIENT_CLIP: 0.5}, slices=8).gradient_clip == 0.5


@pytest.mark.parametrize(
    "config",
    [
        {msg.TASK: msg.ASCEND, msg.GAMMA: 1e-6, msg.RADIUS: 0.1},
        {msg.TASK: msg.NOISY_LABELS, msg.NOISE: 0.03},
        {msg.TASK: msg.DISTIL},
        {msg.OPTIMISER: msg.FISHER},
        {msg.EFFORT: 0.5},
    ],
)
def test_the_client_app_does_what_is_asked(config: dict[str, Any], hospital: Hospital) -> None:
    """Through the real ClientApp each kind of message comes back as an update that differs from training."""
    start = hospital.ask(msg.INITIALISE).content.array_records[msg.ARRAYS]
    usual = hospital.ask(msg.TRAIN, arrays=start).content
    extra = {msg.TEACHER: start} if config.get(msg.TASK) == msg.DISTIL else {}
    reply = hospital.ask(msg.TRAIN, arrays=start, config=config, extra=extra)
    assert not reply.has_error()
    assert dict(reply.content.metric_records[msg.METRICS])[msg.NUM_EXAMPLES] == 6
    update = msg.named_arrays(reply.content.array_records[msg.ARRAYS])
    plain = msg.named_arrays(usual.array_records[msg.ARRAYS])
    assert any(not np.array_equal(update[name], plain[name]) for name in plain)


def test_a_share_of_the_patients_is_always_the_same(hospital: Hospital) -> None:
    """A third of three training patients is one, and it is the same one in every round."""
    start = hospital.ask(msg.INITIALISE).content.array_records[msg.ARRAYS]
    replies = [hospital.ask(msg.TRAIN, arrays=start, config={msg.SHARE: 0.34}) for _ in range(2)]
    records = [reply.content.metric_records[msg.METRICS] for reply in replies]
    assert [record[msg.NUM_EXAMPLES] for record in records] == [2, 2]
    losses = [record[msg.TRAIN_LOSS] for record in records]
    assert losses[0] == losses[1]
