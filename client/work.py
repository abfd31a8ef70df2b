"""What a site does with a model it is sent: train it, measure it, or build the first one.

All that needs torch is here, so that the ClientApp can answer what does not without importing it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from logging import WARNING
from typing import TYPE_CHECKING

import torch
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.common import log

from client.device import usable_device
from client.fisher import FisherDescent
from client.site import Site
from client.tasks import perform
from client.training import mean_loss, train_locally
from mri.evaluation import evaluate
from mri.quality import mean_quality
from mri.reconstructors import Reconstructor, build_reconstructor
from reconsent.config import TrainingConfig
from reconsent.errors import ModelError, ReconsentError, RoundError
from reconsent.seeds import derive_seed
from strategies import messages as msg

# Opacus takes a second to import: only where it is needed.
if TYPE_CHECKING:
    from client.privacy.budget import PrivacyBudget

GATE_SLICES = 8


def initial_model(site: Site) -> RecordDict:
    """The untrained reconstructor of the consortium; every site would build the same."""
    _use_one_thread()
    model = build_reconstructor(site.consortium.model, seed=derive_seed(site.consortium.seed, "initial"))
    return msg.content(arrays=_arrays(model))


def train(
    site: Site,
    message: Message,
    *,
    may_evaluate: bool = True,
    budget: PrivacyBudget | None = None,
    simulated: bool = False,
) -> RecordDict:
    """Train the received model on the site's data.

    Parameters
    ----------
    site
        Whose data.
    message
        A model, and what :mod:`strategies.messages` says of its configuration.
    may_evaluate
        Whether the figures of the received model are added if the message asks for them. They never change
        the training: the measuring draws no random numbers and leaves the model as it is.
    budget
        Of differential privacy; ``None`` trains without. With it no loss is told.
    simulated
        Whether the noise may come from a seed.

    Raises
    ------
    ModelError
        If there is no model in the message, or not the consortium's.
    RoundError
        If the loss stops being finite.
    ConfigError
        If the site's device is not available.
    DataError
        If the site's data cannot be used.
    BudgetSpentError
        If the round would pass the site's privacy ceiling.
    """
    _use_one_thread()
    began = time.perf_counter()
    told = msg.config_of(message)
    model = _load(site, message)
    incoming: dict[str, float] = {}
    if may_evaluate and told.get(msg.EVALUATE_INCOMING):
        incoming = _incoming_quality(site, model)
    own = site.forget_set() if told.get(msg.FORGET_SET) else site
    dataset = own.dataset("train", share=float(told.get(msg.SHARE, 1.0)))
    seed = derive_seed(site.consortium.seed, "train", site.name, "", told[msg.SERVER_ROUND])
    rate = float(told[msg.LEARNING_RATE])
    if budget is None:
        training = _training(site.consortium.training, told, len(dataset))
        if msg.TASK in told:
            teacher = _load(site, message, msg.TEACHER) if msg.teacher_of(message) is not None else None
            loss = perform(model, dataset, training, told, seed=seed, teacher=teacher)
        else:
            optimiser = partial(FisherDescent, lr=rate) if told.get(msg.OPTIMISER) == msg.FISHER else None
            loss = train_locally(
                model, dataset, training, learning_rate=rate, seed=seed, optimiser=optimiser
            ).loss
        told_of = {msg.TRAIN_LOSS: loss, msg.TRAINED_SLICES: _slices(training, len(dataset))}
    elif asked := {msg.TASK, msg.OPTIMISER, msg.SHARE, msg.FORGET_SET} & told.keys():
        raise RoundError(
            f"Site '{site.name}' trains under differential privacy, and its accounting knows nothing of "
            f"'{', '.join(sorted(asked))}'.",
            "Unlearn by a method that asks the sites for plain training only, such as cached-ascent.",
        )
    else:
        from client.privacy.round import private_round

        told_of = private_round(
            site, message, model, budget, learning_rate=rate, seed=seed, simulated=simulated
        )
    seconds = time.perf_counter() - began - incoming.get(msg.EVALUATION_SECONDS, 0.0)
    metrics = {msg.NUM_EXAMPLES: dataset.examples, msg.SECONDS: seconds, **told_of, **incoming}
    if left_out := site.left_out():
        metrics[msg.LEFT_OUT] = len(left_out)
    if missing := len(site.withdrawn) - len(left_out):
        log(WARNING, "%d of the withdrawn-patients are not among the data: removed, or misspelt.", missing)
    return msg.content(arrays=_arrays(model), metrics=metrics)


def measure(site: Site, message: Message) -> RecordDict:
    """Measure the received model on the site's test patients, or its loss on part of the training data.

    Raises
    ------
    ModelError
        If there is no model in the message, not the consortium's, or one that has diverged.
    DataError
        If the site's data cannot be used.
    """
    _use_one_thread()
    began = time.perf_counter()
    model = _load(site, message)
    if msg.config_of(message).get(msg.SPLIT) == msg.SPLIT_GATE:
        # Under differential privacy a loss on training data would be released without noise.
        split = "gate" if site.privacy.mode == "none" else "test"
        loss, examples = mean_loss(model, site.dataset(split), site.consortium.training, limit=GATE_SLICES)
        metrics: dict[str, float] = {msg.NUM_EXAMPLES: examples, msg.LOSS: loss}
    else:
        examples, quality = _test_quality(site, model)
        metrics = {msg.NUM_EXAMPLES: examples, **quality}
    metrics[msg.SECONDS] = time.perf_counter() - began
    return msg.content(metrics=metrics)


def _incoming_quality(site: Site, model: Reconstructor) -> dict[str, float]:
    began = time.perf_counter()
    try:
        examples, quality = _test_quality(site, model)
    except ReconsentError as error:
        # As with an evaluation message of its own: a site that cannot measure can still train.
        # Its words may name a file.
        log(WARNING, "The received model could not be measured: %s.", type(error).__name__)
        return {}
    return {
        msg.TEST_EXAMPLES: examples,
        **quality,
        msg.EVALUATION_SECONDS: time.perf_counter() - began,
    }


def _test_quality(site: Site, model: Reconstructor) -> tuple[int, dict[str, float]]:
    dataset = site.dataset("test")
    quality = mean_quality([result.quality for result in evaluate(model, dataset)])
    return dataset.examples, {msg.PSNR: quality.psnr, msg.SSIM: quality.ssim, msg.NMSE: quality.nmse}


def _use_one_thread() -> None:
    # One thread a client and as many clients as cores is faster than several threads a client, and it
    # keeps the order of floating-point sums, hence the result, the same on every machine.
    torch.set_num_threads(1)


def _training(configured: TrainingConfig, told: Mapping[str, object], slices: int) -> TrainingConfig:
    """What the consortium file says, times the effort that this round asks for; and its clipping."""
    if msg.GRADIENT_CLIP in told:
        configured = configured.model_copy(update={"gradient_clip": float(str(told[msg.GRADIENT_CLIP]))})
    effort = float(str(told.get(msg.EFFORT, 1)))
    if effort >= 1:
        return configured.times(int(effort))
    batches = math.ceil(slices / configured.batch_size)
    steps = configured.local_steps or configured.local_epochs * batches
    return configured.model_copy(update={"local_steps": max(1, round(effort * steps))})


def _slices(training: TrainingConfig, slices: int) -> int:
    """How many slices the training goes over."""
    whole = training.local_epochs * slices
    return training.local_steps * training.batch_size if training.local_steps else whole


def _load(site: Site, message: Message, which: str = msg.ARRAYS) -> Reconstructor:
    record = msg.received_model(message) if which == msg.ARRAYS else msg.teacher_of(message)
    if record is None:
        raise ModelError("The message carries no model.", "Server and site run different versions?")
    device = usable_device(site.device)
    model = build_reconstructor(site.consortium.model, seed=0)
    try:
        model.load_state_dict({name: torch.from_numpy(a) for name, a in msg.named_arrays(record).items()})
    except RuntimeError as error:
        raise ModelError(
            f"The received model is not the one in the consortium file: {error}",
            "Server and sites must use the same [model] table.",
        ) from None
    return model.to(device)


def _arrays(model: torch.nn.Module) -> ArrayRecord:
    return msg.array_record({name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()})
