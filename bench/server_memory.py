"""The server's peak memory against the number of sites: ours, and vanilla FedAvg.

    python -m bench.server_memory [--sites 8 32 128] [--parameters 2000000]

Each figure is a process of its own that runs three rounds with a trivial ClientApp returning a model of the
given size; printed are mebibytes of peak resident memory above that of the same process with two sites.
Two things are measured, and must not be confused:

``server``
    The server's side alone: the strategy on a grid in its own process that makes each reply when it is pulled
    (``strategies.local_grid``). Whoever delivers the replies, a SuperLink or a simulation, is not in it. This
    is what the process of a ServerApp needs beside a SuperLink, which hands over one reply per request too.

``engine``
    The whole process of Flower's simulation engine, which also keeps every message and reply in memory until
    it is pulled, feeds Ray's workers and maps Ray's shared object store. Ours is measured with a window of
    twice as many messages underway as clients run at once, and with all messages sent at once.

Shared memory (Ray's object store) is counted as far as the process has touched it; ``anonymous`` is the peak
without it and without mapped files, sampled every 5 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 3
CLIENTS_AT_ONCE = 2
FEW = 2

KINDS = {
    "server": ("ours", "vanilla"),
    "engine": ("ours, window", "ours, all at once", "vanilla"),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sites", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--parameters", type=int, default=2_000_000)
    parser.add_argument("--only", choices=list(KINDS), help="measure one of the two only")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("WHERE", "KIND", "SITES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        where, kind, sites = args.one
        print(json.dumps(_measure(where, kind, int(sites), args.parameters)))
        return
    found: dict[str, dict[str, dict[str, dict[int, float]]]] = {}
    for where in [args.only] if args.only else list(KINDS):
        for kind in KINDS[where]:
            peaks = {n: _in_process(where, kind, n, args.parameters) for n in (FEW, *args.sites)}
            above = {
                what: {n: round(peaks[n][what] - peaks[FEW][what], 1) for n in args.sites}
                for what in peaks[FEW]
            }
            found.setdefault(where, {})[kind] = above
            print(f"{where:6} {kind:17} {above}", flush=True)
    result = {
        "parameters": args.parameters,
        "model_mebibytes": round(args.parameters * 4 / 2**20, 1),
        "rounds": ROUNDS,
        "clients_at_once": CLIENTS_AT_ONCE,
        "mebibytes_above_two_sites": found,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


def _in_process(where: str, kind: str, sites: int, parameters: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.server_memory", "--one", where, kind, str(sites)]
    command += ["--parameters", str(parameters)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(where: str, kind: str, sites: int, parameters: int) -> dict[str, float]:
    os.environ |= {
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray starts its workers with niceness 15: on a busy machine they would hardly ever run.
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",
    }
    anonymous = _AnonymousPeak()
    with anonymous:
        (_on_local_grid if where == "server" else _on_engine)(kind, sites, parameters)
    return {
        "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "anonymous": anonymous.peak,
    }


class _AnonymousPeak:
    """Samples the anonymous resident memory of this process, in MiB; needs Linux."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            status = Path("/proc/self/status").read_text()
            self.peak = max(self.peak, int(status.split("RssAnon:")[1].split()[0]) / 1024)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _client_app() -> Any:
    import numpy as np
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp

    from strategies import messages as msg

    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        del context
        arrays = {k: v + np.float32(1e-3) for k, v in msg.named_arrays(msg.arrays_of(message)).items()}
        content = msg.content(arrays=msg.array_record(arrays), metrics={msg.NUM_EXAMPLES: 1})
        return Message(content, reply_to=message)

    return app


def _server(kind: str, sites: int, parameters: int) -> Callable[[Any], None]:
    import numpy as np
    from flwr.serverapp.strategy import FedAvg

    from strategies import ContributionAveraging
    from strategies import messages as msg
    from unlearning.contributions import ContributionCache

    def run(grid: Any) -> None:
        initial = msg.array_record({"w": np.zeros(parameters, dtype=np.float32)})
        with tempfile.TemporaryDirectory() as directory:
            if kind.startswith("ours"):
                window = 2 * CLIENTS_AT_ONCE if kind.endswith("window") else None
                cache = ContributionCache.open(Path(directory))
                ours = ContributionAveraging(cache=cache, min_sites=sites, window=window)
                for outcome in ours.rounds(grid, initial, ROUNDS):
                    ours.commit(outcome.round)
            else:
                vanilla = FedAvg(
                    fraction_train=1.0,
                    fraction_evaluate=0.0,
                    min_train_nodes=sites,
                    min_available_nodes=sites,
                )
                vanilla.start(grid, initial, num_rounds=ROUNDS)

    return run


def _on_local_grid(kind: str, sites: int, parameters: int) -> None:
    from strategies.local_grid import LocalGrid

    _server(kind, sites, parameters)(LocalGrid(_client_app(), {n: {} for n in range(1, sites + 1)}))


def _on_engine(kind: str, sites: int, parameters: int) -> None:
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    server = ServerApp()

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        del context
        _server(kind, sites, parameters)(grid)

    run_simulation(
        server_app=server,
        client_app=_client_app(),
        num_supernodes=sites,
        backend_config={
            "client_resources": {"num_cpus": 1},
            "init_args": {"num_cpus": CLIENTS_AT_ONCE, "include_dashboard": False},
        },
    )


if __name__ == "__main__":
    main()
