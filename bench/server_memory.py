"""The server's peak memory against the number of sites, ours and vanilla FedAvg, on Flower's own engine.

    python -m bench.server_memory [--sites 8 32 128] [--parameters 2000000]

Each measurement is a process of its own: three rounds of a trivial ClientApp that returns a model of the
given size. Prints mebibytes of peak resident memory above that of the same process with two sites.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sites", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--parameters", type=int, default=2_000_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "SITES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(_measure(args.one[0], int(args.one[1]), args.parameters)))
        return
    found: dict[str, dict[int, float]] = {}
    for kind in ("ours", "vanilla"):
        peak = {sites: _in_process(kind, sites, args.parameters) for sites in (2, *args.sites)}
        found[kind] = {sites: round(peak[sites] - peak[2], 1) for sites in args.sites}
        print(kind, {sites: f"{value:.0f} MiB" for sites, value in found[kind].items()}, flush=True)
    result = {"parameters": args.parameters, "mebibytes_above_two_sites": found}
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


def _in_process(kind: str, sites: int, parameters: int) -> float:
    command = [sys.executable, "-m", "bench.server_memory", "--one", kind, str(sites)]
    command += ["--parameters", str(parameters)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _measure(kind: str, sites: int, parameters: int) -> float:
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    import numpy as np
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    from strategies import ContributionAveraging
    from strategies import messages as msg
    from unlearning.contributions import ContributionCache

    client, server = ClientApp(), ServerApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        arrays = {k: v + np.float32(1e-3) for k, v in msg.named_arrays(msg.arrays_of(message)).items()}  # type: ignore[arg-type]
        del context
        content = msg.content(arrays=msg.array_record(arrays), metrics={msg.NUM_EXAMPLES: 1})
        return Message(content, reply_to=message)

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        del context
        initial = msg.array_record({"w": np.zeros(parameters, dtype=np.float32)})
        with tempfile.TemporaryDirectory() as directory:
            if kind == "ours":
                cache = ContributionCache.open(Path(directory))
                ContributionAveraging(cache=cache, min_sites=sites).start(grid, initial, num_rounds=ROUNDS)
            else:
                strategy = FedAvg(
                    fraction_train=1.0,
                    fraction_evaluate=0.0,
                    min_train_nodes=sites,
                    min_available_nodes=sites,
                )
                strategy.start(grid, initial, num_rounds=ROUNDS)

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=sites,
        backend_config={
            "client_resources": {"num_cpus": 1},
            "init_args": {"num_cpus": 2, "include_dashboard": False},
        },
    )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
