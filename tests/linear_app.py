"""A ClientApp that has nothing to do with MRI: each site has a quadratic loss of its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from reconsent.seeds import derive_seed
from strategies import messages as msg


def quadratic_app(
    centres: dict[int, np.ndarray],
    curvature: float = 1.0,
    rate: float = 0.1,
    steps: int = 1,
    reach: dict[int, float] | None = None,
) -> ClientApp:
    """Site i minimises h/2 ‖θ − cᵢ‖² by ``steps`` exact gradient steps of size ``rate``.

    A site with a ``reach`` fails, as a reconstructor with infinities in it does, on models farther from its
    centre.
    """
    app = ClientApp()

    def check(theta: np.ndarray, node_id: int) -> None:
        if np.linalg.norm(theta - centres[node_id]) > (reach or {}).get(node_id, np.inf):
            raise ValueError("the reconstruction is not finite")

    def descend(theta: np.ndarray, goal: np.ndarray, told: Mapping[str, object]) -> np.ndarray:
        """The tasks of ``strategies.messages`` on the quadratic loss; noisy labels are shifted by λ."""
        origin, momentum, fisher = theta, np.zeros_like(theta), np.zeros_like(theta)
        ascending = told.get(msg.TASK) == msg.ASCEND
        for step in range(1, steps + 1):
            gradient = curvature * (theta - goal)
            if ascending:
                gradient = float(str(told.get(msg.GAMMA, 0.0))) * np.sign(theta) - gradient
            if told.get(msg.OPTIMISER) == msg.FISHER:
                momentum = 0.9 * momentum + 0.1 * gradient
                fisher = 0.999 * fisher + 0.001 * gradient**4
                curvature_ = np.sqrt(fisher / (1 - 0.999**step)) + 1e-8
                gradient = np.clip(momentum / (1 - 0.9**step) / curvature_, -1, 1)
            theta = theta - rate * gradient
            radius = float(str(told.get(msg.RADIUS, np.inf)))
            if (far := np.linalg.norm(theta - origin)) > radius:
                theta = origin + radius / far * (theta - origin)
        return theta

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = msg.named_arrays(message.content.array_records[msg.ARRAYS])
        theta = arrays["theta"].astype(np.float64)
        centre = centres[context.node_id]
        check(theta, context.node_id)
        told = msg.config_of(message)
        if told.get(msg.TASK) == msg.DISTIL:
            record = message.content.array_records[msg.TEACHER]
            goal = msg.named_arrays(record)["theta"].astype(np.float64)
        else:
            goal = centre + float(told.get(msg.NOISE, 0.0))
        theta = descend(theta, goal, told)
        examples = int(context.node_config.get("examples", 1))
        loss = float(0.5 * curvature * np.sum((theta - centre) ** 2))
        return Message(
            msg.content(
                arrays=msg.array_record({"theta": theta.astype(np.float32), "calls": arrays["calls"]}),
                metrics={msg.NUM_EXAMPLES: examples, msg.TRAIN_LOSS: loss},
            ),
            reply_to=message,
        )

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        theta = msg.named_arrays(msg.arrays_of(message))["theta"]
        check(theta, context.node_id)
        loss = float(0.5 * curvature * np.sum((theta - centres[context.node_id]) ** 2))
        return Message(msg.content(metrics={msg.NUM_EXAMPLES: 1, msg.LOSS: loss}), reply_to=message)

    return app


def model(theta: np.ndarray) -> msg.ArrayRecord:
    """The quadratic model, with an integer buffer that must never be averaged."""
    return msg.array_record({"theta": theta.astype(np.float32), "calls": np.array(7, dtype=np.int64)})


def hospital_app(centres: dict[str, np.ndarray], rate: float = 0.2, steps: int = 3) -> ClientApp:
    """The quadratic sites as Reconsent's server wants them: they say who they are, and build the model.

    The node configuration says ``site`` and, if not the default, ``organ``, ``examples``, ``fault``
    (``train``: the site cannot train), ``leaving`` (how far the patients who withdraw from the site move its
    centre; those patients alone have it that much farther), ``left-out`` (how many of them it says it leaves
    out), ``consortium`` and ``shared-…`` (what it tells of its file), ``claims`` (a number it gives for
    everything) and ``counts`` (what it says when it is asked for its number of examples). Gradients are noisy
    as with mini-batches, seeded by site and round, so that a
    wrong round number or a lost round shows in the last bit of the model.
    """
    app = ClientApp()

    def site_of(context: Context) -> str:
        return str(context.node_config["site"])

    def theta_of(message: Message) -> np.ndarray:
        return msg.named_arrays(message.content.array_records[msg.ARRAYS])["theta"].astype(np.float64)

    @app.query("identify")
    def identify(message: Message, context: Context) -> Message:
        identity = {
            msg.SITE: site_of(context),
            msg.ORGAN: str(context.node_config.get("organ", "brain")),
            msg.CONSORTIUM: str(context.node_config.get("consortium", "quadratic")),
            msg.NUM_EXAMPLES: context.node_config.get("counts", int(context.node_config.get("examples", 1))),
        }
        identity |= {key: said for key, said in context.node_config.items() if key.startswith(msg.SHARED)}
        return Message(msg.content(config=identity), reply_to=message)

    @app.query("initialise")
    def initialise(message: Message, context: Context) -> Message:
        size = centres[site_of(context)].size
        return Message(msg.content(arrays=model(np.zeros(size))), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site, told = site_of(context), msg.config_of(message)
        if context.node_config.get("fault") == "train":
            raise ValueError(f"{site} has no power")
        noise = np.random.default_rng(derive_seed(0, site, told[msg.SERVER_ROUND]))
        theta = theta_of(message)
        goal = centres[site] + float(told.get(msg.NOISE, 0.0))
        leaving = float(context.node_config.get("leaving", 0.0))
        if told.get(msg.PATIENTS_LEFT):
            goal = goal + (leaving if told.get(msg.FORGET_SET) else -leaving)
        if told.get(msg.TASK) == msg.DISTIL:
            goal = msg.named_arrays(message.content.array_records[msg.TEACHER])["theta"].astype(np.float64)
        sign = -1.0 if told.get(msg.TASK) == msg.ASCEND else 1.0
        for _ in range(steps):
            gradient = sign * (theta - goal) + 0.1 * noise.standard_normal(theta.size)
            theta = theta - rate * float(told[msg.LEARNING_RATE]) * gradient
        arrays = {"theta": theta.astype(np.float32), "calls": np.array(7, dtype=np.int64)}
        metrics: dict[str, float] = {
            msg.NUM_EXAMPLES: int(context.node_config.get("examples", 1)),
            msg.TRAIN_LOSS: float(0.5 * np.sum((theta - centres[site]) ** 2)),
            msg.SECONDS: 0.01,
        }
        if "left-out" in context.node_config:
            metrics[msg.LEFT_OUT] = int(context.node_config["left-out"])
        if "claims" in context.node_config:
            metrics = dict.fromkeys(metrics, float(context.node_config["claims"]))
        return Message(msg.content(arrays=msg.array_record(arrays), metrics=metrics), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        loss = float(0.5 * np.sum((theta_of(message) - centres[site_of(context)]) ** 2))
        metrics = {msg.NUM_EXAMPLES: 1, msg.LOSS: loss, msg.PSNR: -loss, msg.SSIM: 0.0, msg.NMSE: loss}
        return Message(msg.content(metrics=metrics), reply_to=message)

    return app
