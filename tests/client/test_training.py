"""Local training: the same arguments give the same model, and settings do what they say."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import pytest
import torch

from client.training import batch_loss, mean_loss, train_locally
from mri.dataset import SiteDataset
from mri.phantoms import synthesise_volume
from mri.reconstructors import Reconstructor, build_reconstructor
from reconsent.config import PhantomConfig, ReconstructorConfig, SamplingConfig, TrainingConfig
from reconsent.errors import DataError, RoundError

MODEL = ReconstructorConfig(name="unet", channels=2, pools=2)
PHANTOM = PhantomConfig(matrix=(32, 32), coils=1, slices=3)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Bit-identity is promised for one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@lru_cache
def dataset(fresh: bool = True) -> SiteDataset:
    """Six slices of two patients."""
    volumes = [synthesise_volume("brain", PHANTOM, seed=0, name=f"p-{n}") for n in range(2)]
    return SiteDataset.from_volumes(
        volumes, SamplingConfig(acceleration=4, center_fraction=0.1), seed=1, fresh_masks=fresh
    )


def model() -> Reconstructor:
    """A small network, always the same."""
    return build_reconstructor(MODEL, seed=3)


def vector(network: torch.nn.Module) -> torch.Tensor:
    """All parameters, flat."""
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


def trained(seed: int = 0, learning_rate: float = 1e-3, **settings: object) -> torch.Tensor:
    """Parameters after training with ``settings``."""
    network = model()
    training = TrainingConfig.model_validate({"batch_size": 2, "local_epochs": 1, **settings})
    train_locally(network, dataset(), training, learning_rate=learning_rate, seed=seed)
    return vector(network)


def test_same_arguments_same_bits() -> None:
    """Twice the same training gives the same parameters, bit for bit; another seed does not."""
    first = trained(local_epochs=2)
    assert torch.equal(first, trained(local_epochs=2))
    assert not torch.equal(first, trained(seed=1, local_epochs=2))


def test_no_state_leaks_from_other_training() -> None:
    """What was trained before in the process, and torch's own generator, do not matter."""
    first = trained()
    torch.manual_seed(99)
    trained(seed=5)
    torch.rand(7)
    assert torch.equal(first, trained())


def test_first_step_has_the_learning_rate() -> None:
    """Adam's first step moves every parameter with a gradient by the learning rate (m/√v = ±1)."""
    before = vector(model())
    for rate in (1e-3, 4e-3):
        moved = (trained(learning_rate=rate, local_steps=1) - before).abs()
        touched = moved[moved > 0.1 * rate]
        assert len(touched) > 0.8 * len(moved)
        torch.testing.assert_close(touched.median(), torch.tensor(rate), rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"local_epochs": 1}, 3),
        ({"local_epochs": 2}, 6),
        ({"local_epochs": 1, "batch_size": 4}, 2),
        ({"local_epochs": 1, "local_steps": 5}, 5),
        ({"local_epochs": 5, "local_steps": 1}, 1),
    ],
)
def test_number_of_steps(settings: dict[str, int], steps: int) -> None:
    """Epochs count passes over the six slices; steps, if given, count alone, over many passes if need be."""
    training = TrainingConfig.model_validate({"batch_size": 2, **settings})
    seen: list[int] = []
    result = train_locally(model(), dataset(), training, learning_rate=1e-3, seed=0, after_step=seen.append)
    assert result.steps == steps
    assert seen == list(range(1, steps + 1))


def test_watching_does_not_change_the_result() -> None:
    """A callback that evaluates the model after each step leaves the training as it was."""
    training = TrainingConfig(batch_size=2, local_epochs=2)
    network = model()

    def watch(_step: int) -> None:
        mean_loss(network, dataset(fresh=False), training)

    train_locally(network, dataset(), training, learning_rate=1e-3, seed=0, after_step=watch)
    assert torch.equal(vector(network), trained(local_epochs=2))
    assert network.training


def test_loss_is_that_of_the_steps() -> None:
    """The reported loss is the mean over slices of the loss before each step."""
    training = TrainingConfig(batch_size=6, local_epochs=1)
    network = model()
    dataset().set_epoch(0)
    result = train_locally(network, dataset(), training, learning_rate=1e-9, seed=0)
    network.eval()
    batch = next(dataset().batches(6, seed=0))
    with torch.no_grad():
        assert result.loss == pytest.approx(float(batch_loss(network, batch, 0.0)), rel=0.2)
    assert 0 < result.loss < 2, "1 - SSIM"


def test_training_lowers_the_loss() -> None:
    """After training the fixed loss is lower than before."""
    network, training = model(), TrainingConfig(batch_size=2, local_epochs=10)
    before, _ = mean_loss(network, dataset(fresh=False), training)
    train_locally(network, dataset(), training, learning_rate=3e-3, seed=0)
    after, _ = mean_loss(network, dataset(fresh=False), training)
    assert after < before


def test_weight_decay_and_clipping_act() -> None:
    """Weight decay and gradient clipping change the training, each in its own way."""
    plain = trained(local_epochs=2)
    decayed = trained(local_epochs=2, weight_decay=0.5)
    assert decayed.norm() < plain.norm()
    assert not torch.equal(trained(local_epochs=2, gradient_clip=1e-6), plain)
    assert not torch.equal(trained(local_epochs=2, l1_weight=1.0), plain)


class Overflowing(torch.nn.Module):
    """A network that does not notice that its output is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(float("nan")))

    def forward(  # noqa: D102
        self, masked_kspace: torch.Tensor, _mask: torch.Tensor, _low: int, crop: tuple[int, int]
    ) -> torch.Tensor:
        return self.scale * torch.ones(masked_kspace.shape[0], *crop)


def test_loss_that_is_not_finite() -> None:
    """A loss that is NaN stops the training and names the step."""
    training = TrainingConfig(batch_size=2, local_epochs=1)
    with pytest.raises(RoundError, match="nan at step 1") as caught:
        train_locally(Overflowing(), dataset(), training, learning_rate=1e-3, seed=0)
    assert "learning rate" in caught.value.remedy


def test_diverging_training_is_refused() -> None:
    """A learning rate that blows the network up ends in an error, not in a model to send."""
    training = TrainingConfig(batch_size=2, local_steps=20)
    with pytest.raises(RoundError, match="at step"):
        train_locally(model(), dataset(), training, learning_rate=1e30, seed=0)


def test_nothing_to_train_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices without any signal are an error, not an endless search for a batch."""
    empty = SiteDataset.from_volumes(
        [synthesise_volume("brain", PHANTOM, seed=0, name="p")], SamplingConfig(), seed=1, fresh_masks=True
    )
    monkeypatch.setattr(empty, "batches", lambda *_, **__: iter(()))
    with pytest.raises(DataError, match="No slice"):
        train_locally(model(), empty, TrainingConfig(local_steps=3), learning_rate=1e-3, seed=0)


def test_mean_loss_is_fixed() -> None:
    """The watched loss is the same at every call, does not change the model, and honours its limit."""
    network, training = model(), TrainingConfig(batch_size=2)
    data = dataset(fresh=False)
    first = mean_loss(network, data, training, limit=4)
    assert first[1] == 4
    data.set_epoch(17)
    assert mean_loss(network, data, training, limit=4) == first
    assert mean_loss(network, data, training)[1] == 6
    assert torch.equal(vector(network), vector(model()))
