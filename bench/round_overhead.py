"""What a round of ours costs at the server, beside vanilla Flower FedAvg with the same client.

    python -m bench.round_overhead [--rounds 10]

Trains the demo consortium in worker processes; rounds of both kinds alternate, so that whatever else the
machine does falls on both. Ours screens, spools, caches contributions (running sums and history), registers
the model version and commits the round to the database. Prints seconds a round, and the overhead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg

from bench.method_search import coordinator
from strategies import ContributionAveraging
from strategies import messages as msg


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, coordinator(Path(root), 0, "demo") as (c, _):
        c.meet()
        version = c.initialise()
        start = c.books.arrays(version)
        ours = ContributionAveraging(round_config=c._told, cache=c.cache, **c._common())
        vanilla = FedAvg(fraction_train=1.0, min_train_nodes=1, min_available_nodes=1)
        seconds: dict[str, list[float]] = {"vanilla": [], "ours": []}
        server: list[float] = []
        for number in range(1, args.rounds + 2):
            seconds["vanilla"].append(_vanilla_round(c, vanilla, start, number))
            began, busy = time.perf_counter(), time.process_time()
            outcome = ours.run_round(c.grid, number, start)
            version = c.books.commit(ours, outcome, "main", version, {})
            seconds["ours"].append(time.perf_counter() - began)
            server.append(time.process_time() - busy)
        result = {kind: statistics.median(values[1:]) for kind, values in seconds.items()}
        result["overhead_percent"] = 100 * (result["ours"] / result["vanilla"] - 1)
        result["server_cpu_seconds"] = statistics.median(server[1:])
        result["rounds"] = args.rounds
        print(json.dumps(result, indent=2))
        if args.out:
            args.out.write_text(json.dumps(result, indent=2) + "\n")


def _vanilla_round(c: object, strategy: FedAvg, arrays: ArrayRecord, number: int) -> float:
    config = ConfigRecord({msg.LEARNING_RATE: 1e-3, msg.SERVER_ROUND: number})
    began = time.perf_counter()
    messages = strategy.configure_train(number, arrays, config, c.grid)  # type: ignore[attr-defined]
    replies = c.grid.send_and_receive(messages, timeout=600)  # type: ignore[attr-defined]
    after, _ = strategy.aggregate_train(number, replies)
    if after is None:
        raise SystemExit("vanilla FedAvg got no replies")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
