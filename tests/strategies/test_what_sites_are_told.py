"""What a round asks of the sites, and what it makes of their answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from strategies import Departure, build_method
from strategies import messages as msg
from strategies.local_grid import LocalGrid
from strategies.outcomes import RoundOutcome, SiteOutcome

MODEL = {"w": np.zeros(3, dtype=np.float32)}


def heard_by_sites(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What two sites are told in a round of retain-only fine-tuning."""
    heard: list[dict[str, Any]] = []
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        heard.append(msg.config_of(message))
        arrays = msg.named_arrays(message.content.array_records[msg.ARRAYS])
        content = msg.content(arrays=msg.array_record(arrays), metrics={msg.NUM_EXAMPLES: 1})
        return Message(content, reply_to=message)

    departure = Departure(frozenset({"node-3"}), 10, 2, 1e-3, lambda: msg.array_record(MODEL))
    strategy = build_method("retain-ft", settings, departure)
    grid = LocalGrid(app, {1: {}, 2: {}, 3: {}})
    next(iter(strategy.rounds(grid, msg.array_record(MODEL), 1)))
    return heard


def test_effort_is_told_to_the_sites_that_stay() -> None:
    """An effort of three reaches the two remaining sites, and the one that left hears nothing."""
    assert [told[msg.EFFORT] for told in heard_by_sites({"effort": 3})] == [3, 3]


def test_the_usual_effort_is_not_mentioned() -> None:
    """Without more effort the message is that of any training round."""
    assert all(msg.EFFORT not in told for told in heard_by_sites({}))


def test_the_quality_of_the_incoming_model_is_no_figure_of_the_training() -> None:
    """PSNR of the received model is kept by site, and not averaged by the shares of the training."""
    measured = {msg.TRAIN_LOSS: 0.5, msg.NUM_EXAMPLES: 4, msg.PSNR: 30.0, msg.TEST_EXAMPLES: 2}
    sites = (
        SiteOutcome("a", "ok", "", measured, 1.0),
        SiteOutcome("b", "ok", "", {msg.TRAIN_LOSS: 0.1, msg.NUM_EXAMPLES: 4}, 1.0),
    )
    outcome = RoundOutcome(1, "train", ArrayRecord(), {"a": 0.5, "b": 0.5}, sites, 1.0)
    assert outcome.incoming() == {"a": {msg.PSNR: 30.0}}
    assert dict(outcome.metrics()) == {"sites": 2, msg.TRAIN_LOSS: pytest.approx(0.3)}
