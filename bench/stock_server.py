"""A ServerApp of Flower's own strategy, for ``bench.grpc_round``; it runs without this package."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    """Federated averaging that notes when each round ends."""

    def __init__(self, **settings: float) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.ends: list[float] = []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Average, and note that the round has ended."""
        averaged = super().aggregate_evaluate(server_round, replies)
        self.ends.append(time.time())
        return averaged


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Build the model at a site, train, and write what was noted."""
    while len(nodes := list(grid.get_node_ids())) < 3:
        time.sleep(1)
    asked = Message(
        RecordDict({"config": ConfigRecord()}), dst_node_id=nodes[0], message_type="query.initialise"
    )
    (built,) = grid.send_and_receive([asked])
    strategy = Timed(fraction_train=1.0, fraction_evaluate=1.0, min_available_nodes=3)
    strategy.start(
        grid,
        built.content.array_records["arrays"],
        num_rounds=int(str(context.run_config["rounds"])),
        train_config=ConfigRecord({"learning-rate": 1e-3}),
        evaluate_config=ConfigRecord({"split": "test"}),
    )
    Path(str(context.run_config["out"])).write_text(json.dumps({"ends": strategy.ends}), encoding="utf-8")
