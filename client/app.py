"""The ClientApp of a hospital: the same in simulation and over gRPC."""

from __future__ import annotations

import os
import time

import torch
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from client.site import Site, identify_site
from client.training import mean_loss, train_locally
from mri.evaluation import evaluate
from mri.quality import mean_quality
from mri.reconstructors import Reconstructor, build_reconstructor
from reconsent.errors import ModelError
from reconsent.seeds import derive_seed
from strategies import messages as msg

GATE_SLICES = 8

app = ClientApp()


@app.query("identify")
def identify(message: Message, context: Context) -> Message:
    """Say which site this is, and how many training slices it has."""
    site = _site(context)
    identity: dict[str, int | float | str | bool] = {
        msg.SITE: site.name,
        msg.ORGAN: site.config.organ,
        msg.CONSORTIUM: site.consortium.name,
        msg.NUM_EXAMPLES: len(site.dataset("train")),
    }
    return Message(msg.content(config=identity), reply_to=message)


@app.query("initialise")
def initialise(message: Message, context: Context) -> Message:
    """Build the untrained reconstructor; the server knows no imaging, so a site does it."""
    site = _site(context)
    model = build_reconstructor(site.consortium.model, seed=derive_seed(site.consortium.seed, "initial"))
    return Message(msg.content(arrays=_arrays(model)), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model on this site's data and return it."""
    began = time.perf_counter()
    site = _site(context)
    told = msg.config_of(message)
    model = _load(site, message)
    dataset = site.dataset("train")
    result = train_locally(
        model,
        dataset,
        site.consortium.training,
        learning_rate=float(told[msg.LEARNING_RATE]),
        seed=derive_seed(
            site.consortium.seed, "train", site.name, told.get(msg.STREAM, ""), told[msg.SERVER_ROUND]
        ),
    )
    metrics = {
        msg.NUM_EXAMPLES: len(dataset),
        msg.TRAIN_LOSS: result.loss,
        msg.SECONDS: time.perf_counter() - began,
    }
    return Message(msg.content(arrays=_arrays(model), metrics=metrics), reply_to=message)


@app.evaluate()
def evaluate_model(message: Message, context: Context) -> Message:
    """Measure the received model on this site's test patients, or its loss on part of the training data."""
    began = time.perf_counter()
    site = _site(context)
    told = msg.config_of(message)
    model = _load(site, message)
    if told.get(msg.SPLIT) == msg.SPLIT_GATE:
        loss, examples = mean_loss(model, site.dataset("gate"), site.consortium.training, limit=GATE_SLICES)
        metrics: dict[str, float] = {msg.NUM_EXAMPLES: examples, msg.LOSS: loss}
    else:
        dataset = site.dataset("test")
        quality = mean_quality([result.quality for result in evaluate(model, dataset)])
        metrics = {
            msg.NUM_EXAMPLES: len(dataset),
            msg.PSNR: quality.psnr,
            msg.SSIM: quality.ssim,
            msg.NMSE: quality.nmse,
        }
    metrics[msg.SECONDS] = time.perf_counter() - began
    return Message(msg.content(metrics=metrics), reply_to=message)


def _site(context: Context) -> Site:
    # One thread a client and as many clients as cores is faster than several threads a client, and it
    # keeps the order of floating-point sums, hence the result, the same on every machine.
    torch.set_num_threads(1)
    return identify_site(context.node_config, context.run_config, os.environ)


def _load(site: Site, message: Message) -> Reconstructor:
    record = msg.arrays_of(message)
    if record is None:
        raise ModelError("The message carries no model.", "Server and site run different versions?")
    model = build_reconstructor(site.consortium.model, seed=0)
    try:
        model.load_state_dict({name: torch.from_numpy(a) for name, a in msg.named_arrays(record).items()})
    except RuntimeError as error:
        raise ModelError(
            f"The received model is not the one in the consortium file: {error}",
            "Server and sites must use the same [model] table.",
        ) from None
    return model


def _arrays(model: torch.nn.Module) -> ArrayRecord:
    return msg.array_record({name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()})
