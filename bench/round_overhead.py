"""What a round of ours costs at the server, beside vanilla Flower FedAvg with the same client.

    python -m bench.round_overhead [--rounds 10] [--out FILE]

Flower's own simulation engine runs one ServerApp on the demo consortium with Reconsent's own ClientApp; it
alternates rounds of both kinds from the same model, so that whatever else the machine does falls on both. A
vanilla round is FedAvg's ``configure_train``, the grid's ``send_and_receive`` and ``aggregate_train``. Ours
screens, spools and averages the replies, caches contributions (running sums and history), registers the model
version, and commits the round to the database. The first round of each kind, which warms up, is left out.

Printed are the medians of the seconds a round, of the CPU seconds of the server's process in it (Flower's
engine, the same for both, included), and the overhead: ours over vanilla, less one. Run it on an idle
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli.assessment import default_workers
from cli.consortium_data import prepare_data
from cli.run_directory import RunDirectory
from reconsent.config import ConsortiumConfig, load_consortium

PRESET = "demo"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="of each kind")
    parser.add_argument("--out", type=Path, help="a JSON file to write the figures to")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        config = load_consortium(PRESET)
        # Measuring the model is not what is compared.
        config = config.model_copy(
            update={"training": config.training.model_copy(update={"evaluate_every": 0})}
        )
        directory = RunDirectory(Path(root) / config.name)
        directory.prepare(config)
        with directory.environment():
            prepare_data(config, lambda *_: None)
            measured = _simulate(config, directory, args.rounds)
    result: dict[str, Any] = {
        what: {kind: round(statistics.median(values[1:]), 4) for kind, values in by_kind.items()}
        for what, by_kind in measured.items()
    }
    seconds = result["seconds"]
    result["overhead_percent"] = round(100 * (seconds["ours"] / seconds["vanilla"] - 1), 2)
    result |= {"rounds": args.rounds, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


def _simulate(
    config: ConsortiumConfig, directory: RunDirectory, rounds: int
) -> dict[str, dict[str, list[float]]]:
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    import client.app

    measured: dict[str, dict[str, list[float]]] = {
        what: {"vanilla": [], "ours": []} for what in ("seconds", "server_cpu_seconds")
    }
    server = ServerApp()

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        del context
        for kind, one_round in _alternating(grid, config, directory, rounds + 1):
            began, busy = time.perf_counter(), time.process_time()
            one_round()
            measured["seconds"][kind].append(time.perf_counter() - began)
            measured["server_cpu_seconds"][kind].append(time.process_time() - busy)

    run_simulation(
        server_app=server,
        client_app=client.app.app,
        num_supernodes=len(config.sites),
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": default_workers(), "include_dashboard": False, "log_to_driver": False},
        },
    )
    if len(measured["seconds"]["ours"]) <= rounds:
        raise SystemExit("the simulation ended before all rounds were measured; see its log above")
    return measured


def _alternating(grid: Any, config: ConsortiumConfig, directory: RunDirectory, rounds: int) -> Any:
    """Yields ``(kind, a function that runs one round)``; ours is all that a server does in a round."""
    from flwr.app import ConfigRecord
    from flwr.serverapp.strategy import FedAvg

    from server.coordinator import Coordinator
    from server.persistence import StateDirectory
    from strategies import messages as msg

    told: dict[str, float | int | str | bool] = {msg.LEARNING_RATE: config.training.learning_rate}
    with StateDirectory.open(directory.state) as state:
        coordinator = Coordinator(grid, config, state, simulated=True)
        coordinator.meet()
        start = coordinator.books.arrays(coordinator.initialise())
        vanilla = FedAvg(
            fraction_train=1.0,
            min_train_nodes=len(config.sites),
            min_available_nodes=len(config.sites),
        )

        def vanilla_round(number: int) -> None:
            record = ConfigRecord({**told, msg.SERVER_ROUND: number})
            messages = vanilla.configure_train(number, start, record, grid)
            replies = grid.send_and_receive(messages, timeout=config.training.timeout_seconds)
            arrays, _ = vanilla.aggregate_train(number, replies)
            if arrays is None:
                raise SystemExit("vanilla FedAvg got no replies")

        kinds: dict[str, Callable[[int], None]] = {"vanilla": vanilla_round, "ours": coordinator.train}
        for number in range(1, rounds + 1):
            # Who goes first changes from round to round.
            for kind in sorted(kinds, reverse=bool(number % 2)):
                yield kind, lambda kind=kind, number=number: kinds[kind](number)


if __name__ == "__main__":
    main()
