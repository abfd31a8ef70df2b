"""A ClientApp that has nothing to do with MRI: each site has a quadratic loss of its own."""

from __future__ import annotations

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from strategies import messages as msg


def quadratic_app(
    centres: dict[int, np.ndarray], curvature: float = 1.0, rate: float = 0.1, steps: int = 1
) -> ClientApp:
    """Site i minimises h/2 ‖θ − cᵢ‖² by ``steps`` exact gradient steps of size ``rate``."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = msg.named_arrays(msg.arrays_of(message))
        theta = arrays["theta"].astype(np.float64)
        centre = centres[context.node_id]
        for _ in range(steps):
            theta = theta - rate * curvature * (theta - centre)
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
        loss = float(0.5 * curvature * np.sum((theta - centres[context.node_id]) ** 2))
        return Message(msg.content(metrics={msg.NUM_EXAMPLES: 1, msg.LOSS: loss}), reply_to=message)

    return app


def model(theta: np.ndarray) -> msg.ArrayRecord:
    """The quadratic model, with an integer buffer that must never be averaged."""
    return msg.array_record({"theta": theta.astype(np.float32), "calls": np.array(7, dtype=np.int64)})
